"""One line for each precision, on every kind of model."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from torch import Tensor, nn

import compress
from compress import Artifact, Binarize, Context, Dataset, Half, Int4, MixedPrecision, Prune, QuantizeAware, Recipe
from compress.networks.as_artifact import as_artifact
from compress.networks.onnx_export import onnx_bytes
from compress.quantization.precisions import PRECISION_STAGES
from hw_profiles import Budget
from tests.compress.model_kinds import ARCH, BLINK, INTEGERS, logits, of_timm, small, tensor_types

KEPT = {"fp16": onnx.TensorProto.FLOAT16, "int4": onnx.TensorProto.INT4, "binary": onnx.TensorProto.UINT8}
SHORT = {"binary": Binarize(recipe=BLINK), "qat": QuantizeAware(recipe=BLINK), "mixed": MixedPrecision(images=8)}


@pytest.mark.parametrize("precision", ["fp16", "int4", "binary"])
@pytest.mark.parametrize("kind", ["arch", "module", "timm", "file"])
def test_any_model_is_stored_in_fewer_bits(kind: str, precision: str, context: Context, tmp_path: Path) -> None:
    compress.export_onnx(as_artifact(small(), context.data), tmp_path / "m.onnx")
    model = {"arch": ARCH, "module": small(), "timm": of_timm(), "file": str(tmp_path / "m.onnx")}[kind]
    if (kind, precision) == ("file", "binary"):
        with pytest.raises(ValueError, match="an ONNX file cannot be trained"):
            compress.quantize(model, context.data, precision=precision)
        return
    after = compress.quantize(model, context.data, SHORT.get(precision), precision=precision)
    assert KEPT[precision] in tensor_types(after)
    assert after.precision == "fp32"
    assert after.metrics["file_bytes"] == len(onnx_bytes(after)) < after.metrics["file_bytes_before"]


@pytest.mark.parametrize("precision", ["qat", "mixed"])
def test_an_arch_is_made_integers_in_other_ways(precision: str, learnt: Artifact, context: Context) -> None:
    after = compress.quantize(INTEGERS(learnt, context), context.data, SHORT[precision], precision=precision)
    assert onnx.TensorProto.INT8 in tensor_types(after)
    assert after.precision == "int8"
    assert after.metrics["val_accuracy"] > 0.3


@pytest.mark.parametrize("precision", ["fp16", "int4"])
def test_fewer_bits_need_no_images(precision: str, learnt: Artifact, context: Context, tmp_path: Path) -> None:
    compress.export_onnx(learnt, tmp_path / "m.onnx")
    for model in (learnt, tmp_path / "m.onnx"):
        after = compress.quantize(model, precision=precision)
        x = learnt.preprocessing.tensor(context.data.val.images)
        exact, got = (logits(onnx_bytes(each), x) for each in (learnt, after))
        assert np.mean(exact.argmax(1) == got.argmax(1)) > 0.8
        assert not np.array_equal(exact, got)


def test_the_usual_precision_is_int8(learnt: Artifact, context: Context) -> None:
    assert compress.quantize(learnt, context.data, INTEGERS).precision == "int8"
    assert next(iter(PRECISION_STAGES)) == "int8"
    assert {name: stage.name for name, stage in PRECISION_STAGES.items()} == {name: name for name in PRECISION_STAGES}


def test_biases_undo_what_4_bits_do_to_means(learnt: Artifact, context: Context) -> None:
    """So that the logits have the means that they had; without images they cannot."""
    x = learnt.preprocessing.tensor(context.data.train.images)
    wanted = logits(onnx_bytes(learnt), x).mean(0)
    seen = Int4(group=64)(learnt, context)
    unseen = compress.quantize(learnt, config=Int4(group=64))
    off = [np.abs(logits(onnx_bytes(each), x).mean(0) - wanted).max() for each in (seen, unseen)]
    assert off[0] < 0.5 * off[1]


def test_binary_weights_are_signs_times_the_mean_magnitude_of_their_channel(context: Context) -> None:
    """In training as in the file (XNOR-Net's equation 6), here where hardly anything is learned."""
    module = small()
    still = Binarize(recipe=Recipe(epochs=0.02, learning_rate=1e-9))
    after = compress.quantize(module, context.data, still).model()
    rows = module[3].weight.detach().numpy()
    expected = np.where(rows >= 0, 1, -1) * np.abs(rows).mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(after[3].weight.detach().numpy(), expected, rtol=1e-4)
    assert len(after[0].weight.detach().abs().unique()) > 100


@pytest.mark.parametrize("kind", ["module", "file"])
def test_weights_of_any_float_network_are_mixed(kind: str, context: Context, tmp_path: Path) -> None:
    compress.export_onnx(as_artifact(small(), context.data), tmp_path / "m.onnx")
    model = {"module": small(), "file": tmp_path / "m.onnx"}[kind]
    given, stage = as_artifact(model, context.data), MixedPrecision(bits=4, group=8, images=32)
    loose, strict = (stage(given, replace(context, max_accuracy_drop=drop)) for drop in (100.0, -100.0))
    assert onnx.TensorProto.INT4 in tensor_types(loose)
    assert onnx.TensorProto.INT4 not in tensor_types(strict)  # cannot be kept: all are raised
    assert len(strict.metrics["mixed"]["raised"]) == len(loose.metrics["mixed"]["sensitivity"]) == 3
    x = context.data.preprocessing.tensor(context.data.val.images[:8])
    np.testing.assert_allclose(logits(onnx_bytes(strict), x), logits(onnx_bytes(given), x), rtol=1e-5, atol=1e-5)
    for row in loose.metrics["mixed"]["sensitivity"]:
        assert (row["divergence"] > 0) == (row["saved_bytes"] > 0)  # few weights take more bytes with their scales
    assert sum(row["saved_bytes"] > 0 for row in loose.metrics["mixed"]["sensitivity"]) >= 2


@pytest.mark.parametrize("network", ["HandSwish", "Normed"])
def test_operations_of_a_network_that_has_others_as_well_are_mixed(network: str, context: Context) -> None:
    """What has no integer arithmetic is in float anyway."""
    given = as_artifact({"HandSwish": HandSwish, "Normed": Normed}[network](), context.data)
    after = MixedPrecision(images=8)(given, replace(context, max_accuracy_drop=100.0))
    assert (after.precision, after.metrics["mixed"]["raised"]) == ("int8", [])
    assert len(after.metrics["mixed"]["sensitivity"]) == 2


def test_a_budget_of_bytes_keeps_weights_in_4_bits(context: Context) -> None:
    stage = MixedPrecision(bits=4, group=8, images=32)
    everything = compress.quantize(small(), context.data, stage)
    least = everything.workload().weight_bytes
    tight = compress.quantize(small(), context.data, stage, budget=Budget(flash_bytes=least))
    assert tight.workload().weight_bytes == least
    assert tight.metrics["mixed"]["raised"] == []


def four(data: Dataset) -> Artifact:
    """A module whose weights are stored in 4 bits."""
    return compress.quantize(small(), data, precision="int4")


def normed() -> nn.Module:
    """A module whose first weight a hook computes."""
    module = small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(next(each for each in module.modules() if isinstance(each, nn.Conv2d)))
    return module


class HandSwish(nn.Module):
    """A hard swish as older code writes it, with constants that are added and divided by."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 8, 3, 2), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        logits: Tensor = self.last((x * nn.functional.relu6(x + 3) / 6).mean((2, 3)))
        return logits


class Normed(nn.Module):
    """A classifier with a layer normalization, which has no integer arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 8, 3, 2), nn.LayerNorm(8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.norm(self.conv(x).mean((2, 3))))
        return logits


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x).mean((2, 3))
        return y, y


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda data: compress.quantize(ARCH, data, precision="int9"), "precision must be one of int8, .*mean 'int8'"),
        (lambda data: compress.quantize(ARCH, data, Prune()), "config must be one of Quantize, .*, got Prune"),
        (lambda data: compress.quantize(ARCH, data, Half(), precision="int4"), "must agree, got Half and 'int4'"),
        (lambda data: compress.quantize(ARCH), "precision 'int8' needs images"),
        (lambda data: compress.quantize(ARCH, config=Int4(recipe=BLINK)), "precision 'int4' needs images"),
        (lambda data: compress.quantize(small(), precision="fp16"), "Sequential: does not say what it reads"),
        (lambda data: compress.quantize(four(data), data, precision="qat"), "before the weights of an external network are"),
        (lambda data: compress.quantize(four(data), data, precision="mixed"), "weights are stored in 4 bits"),
        (lambda data: compress.quantize(ARCH, precision="fp16", budget=Budget(flash_bytes=1)), "what the network takes in fp16"),
        (lambda data: compress.sparsify(compress.quantize(ARCH, precision="fp16")), "or are stored in fewer bits"),
        (lambda data: compress.cluster(compress.quantize(ARCH, precision="fp16")), "this network is already quantized"),
        (lambda data: compress.quantize(normed(), data), "uses weight parametrizations"),
        (lambda data: compress.quantize(small().to("meta"), data), "is on the meta device"),
        (lambda data: compress.distill(ARCH, data, teacher=3), "teacher must be a model, a callable, or a list of these, got int"),
        (lambda data: compress.distill(ARCH, data, teacher=[]), "at least one teacher"),
        (lambda data: compress.sparsify(Two(), data), "Two: a classifier has one output, a tensor, got tuple"),
        (lambda data: compress.sparsify(ARCH, amount="half"), "amount must be between 0 and 1, got 'half'"),
        (lambda data: compress.cluster(ARCH, clusters=2.5), "clusters must be between 2 and 65536 .*, got 2.5"),
        (lambda data: compress.prune(ARCH, data, amount="x"), "amount must be between 0 and 1, got 'x'"),
        (lambda data: Prune(steps=1.5), "steps must be at least 1"),
        (lambda data: Int4(group=2.5), "group must be at least 2, got 2.5"),
        (lambda data: compress.quantize(ARCH, ("a", "b")), r"inputs must be numbers \(N, ...\), got <U1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_one_line(call: Any, said: str, context: Context) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        call(context.data)
    assert len(str(caught.value).splitlines()) == 1
