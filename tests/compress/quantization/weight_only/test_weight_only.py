"""Stages that store weights in 16, 4 or 1 bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compress import Artifact, Context, OnnxFile, Quantize, Recipe, Timm, export_onnx, load_data
from compress.networks.onnx_export import folded_weights, onnx_bytes, onnx_logits
from compress.networks.store_weights import is_representable, with_stored_weights
from compress.quantization.int8.fidelity import FidelityEvaluator
from compress.quantization.weight_only.binary import Binarize
from compress.quantization.weight_only.fp16 import Half
from compress.quantization.weight_only.int4 import Int4
from compress.quantization.weight_only.ste_training import train_straight_through
from compress.stage_interface import Stage
from compress.training.evaluation import accuracy, predict
from compress.weight_codecs.codecs import BINARY, Int4Codec
from compress.weight_codecs.onnx_storage import Weight
from hw_profiles import load_device
from hw_profiles.layer_profile import profile_layers
from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.network.workload import Workload
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.runtimes.fusion import fuse
from tests.contracts import with_random_statistics

SHORT = Recipe(epochs=1, learning_rate=0.02)
STAGES: list[Stage] = [Half(), Int4(recipe=None), Int4(group=16, recipe=SHORT), Binarize(recipe=SHORT)]


def module_logits(artifact: Artifact, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return artifact.model()(torch.from_numpy(artifact.preprocessing.tensor(images))).numpy()


def fidelity(artifact: Artifact, data: bytes, context: Context) -> float:
    images = artifact.preprocessing.tensor(context.data.val.images)
    return FidelityEvaluator(onnx_bytes(artifact), images)(data).divergence


@pytest.mark.parametrize(
    "stage", STAGES, ids=lambda stage: f"{stage.name}-{getattr(stage, 'recipe', None) is not None}"
)
def test_the_file_is_the_module_and_its_bytes_are_those_of_the_formats(
    stage: Stage, learnt: Artifact, context: Context, tmp_path: Path
) -> None:
    after = stage(learnt, context)
    after.save(tmp_path)
    after = Artifact.load(tmp_path)
    data, images = onnx_bytes(after), context.data.val.images[:64]
    expected = module_logits(after, images)
    assert np.abs(onnx_logits(data, images, after.preprocessing) - expected).max() < 1e-4 * np.abs(expected).max()
    plain = onnx_bytes(learnt)
    saved = learnt.workload().weight_bytes - after.workload().weight_bytes
    assert saved > 0.45 * learnt.workload().weight_bytes
    assert len(plain) - len(data) == pytest.approx(saved, rel=0.03)


def test_half_loses_nothing(learnt: Artifact, context: Context) -> None:
    after = Half()(learnt, context)
    before, rounded = (module_logits(artifact, context.data.val.images) for artifact in (learnt, after))
    assert np.abs(before - rounded).max() < 2e-3 * np.abs(before).max()
    assert {stored.bits for stored in after.weight_formats.values()} == {16}


def test_smaller_groups_are_nearer_and_larger(learnt: Artifact, context: Context) -> None:
    def weights(artifact: Artifact) -> np.ndarray:
        folded = folded_weights(artifact.model(), artifact.arch.workload())
        return np.concatenate([value.flatten() for value in folded.values()])

    stored = [Int4(group=group, recipe=None)(learnt, context) for group in (8, 32, 1000)]
    errors = [float(np.square(weights(each) - weights(learnt)).sum()) for each in stored]
    assert errors == sorted(errors)
    assert errors[0] < 0.8 * errors[2]
    sizes = [len(onnx_bytes(each)) for each in stored]
    assert sizes == sorted(sizes, reverse=True)


def test_int4_gets_better_by_training_on_its_grid(learnt: Artifact, context: Context) -> None:
    whole = 10_000  # one scale for each channel, the coarsest
    before = Int4(group=whole, recipe=None)(learnt, context)
    after = Int4(group=whole, recipe=Recipe(epochs=2, learning_rate=0.01))(learnt, context)
    assert fidelity(learnt, onnx_bytes(after), context) < 0.7 * fidelity(learnt, onnx_bytes(before), context)
    assert after.weight_formats.keys() == before.weight_formats.keys()
    assert after.metrics["training"]["epochs"] == pytest.approx(2, abs=0.1)


@pytest.mark.slow
def test_binarize_trains_what_rounding_alone_destroys(learnt: Artifact, context: Context) -> None:
    def right(artifact: Artifact) -> float:
        return accuracy(predict(artifact.model(), context.data.val, artifact.preprocessing), context.data.val)

    after = Binarize(recipe=Recipe(epochs=5, learning_rate=0.1, weight_decay=0.0))(learnt, context)
    names = {f"stages.{i}.0.{conv}.weight" for i in range(3) for conv in ("conv1", "conv2")}
    rounded = with_stored_weights(learnt, BINARY, lambda weight: weight.name in names)
    assert names <= after.weight_formats.keys()
    assert not {"stem.weight", "classifier.weight"} & after.weight_formats.keys()
    weights = folded_weights(after.model(), after.arch.workload())
    for name in names:
        assert all(len(np.unique(np.abs(channel))) == 1 for channel in weights[name])
    assert right(after) > right(rounded) + 0.2
    assert right(after) > 0.5


def test_a_training_stopped_in_the_middle_ends_the_same(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    stage = Int4(recipe=Recipe(epochs=0.5))
    first = stage(learnt, replace(context, checkpoint=tmp_path / "checkpoint.pt"))
    again = stage(learnt, replace(context, checkpoint=tmp_path / "checkpoint.pt"))
    assert all(torch.equal(first.weights[key], value) for key, value in again.weights.items())
    assert list(tmp_path.iterdir())


def test_weights_on_a_grid_are_told_from_others() -> None:
    rows = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    for codec in (BINARY, Int4Codec(32)):
        scaled = codec.rounded(rows) * np.float32([[0.3], [1.7], [0.01], [29.3]])  # as a batch normalization scales
        assert is_representable(codec, Weight("w", scaled))
        assert not is_representable(codec, Weight("w", rows))


def test_memory_and_kernels_stay_those_of_float32(learnt: Artifact, context: Context) -> None:
    for stage in (Half(), Int4(recipe=None)):
        assert fuse(stage(learnt, context).workload()) == fuse(learnt.workload())


def test_zeros_stay_and_are_counted(learnt: Artifact, context: Context) -> None:
    weights = dict(learnt.weights)
    weights["classifier.weight"] = weights["classifier.weight"] * (torch.arange(64) % 4 == 0)
    sparse = replace(
        learnt, weights=weights, weight_formats={"classifier.weight": TensorFormat(floating=True, density=0.25)}
    )
    for stage in (Half(), Int4(recipe=None)):
        after = stage(sparse, context)
        assert after.weight_formats["classifier.weight"].density == 0.25
        assert after.weights["classifier.weight"].count_nonzero() <= 160


def test_files_and_models_of_timm_are_stored_too(learnt: Artifact, context: Context) -> None:
    images = context.data.val.images[:32]
    file = Artifact(source=OnnxFile(data=onnx_bytes(learnt)), weights={}, preprocessing=learnt.preprocessing)
    external = Timm(name="resnet10t", kwargs={"num_classes": 10, "in_chans": 1}, input_shape=(1, 32, 32))
    data = load_data("digits")
    timm = Artifact(source=external, weights={}, preprocessing=data.preprocessing).with_model(
        with_random_statistics(external.build())
    )
    after = Int4(recipe=None)(file, context)
    assert len(onnx_bytes(after)) < 0.25 * len(onnx_bytes(file))
    expected = module_logits(Int4(recipe=None)(learnt, context), images)  # the same network as an Arch
    got = onnx_logits(onnx_bytes(after), images, after.preprocessing)
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(got - module_logits(learnt, images)).max() > 1e-3 * np.abs(expected).max()
    halved = Half()(timm, replace(context, data=data))
    assert len(onnx_bytes(halved)) < 0.55 * len(onnx_bytes(timm))
    expected = onnx_logits(onnx_bytes(timm), data.val.images[:4], data.preprocessing)
    assert (
        np.abs(onnx_logits(onnx_bytes(halved), data.val.images[:4], data.preprocessing) - expected).max()
        < 0.01 * np.abs(expected).max()
    )


def test_biases_of_transformers_are_corrected_and_their_kernels_stay() -> None:
    size = {"img_size": (32, 32), "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    source = Timm(
        name="vit_tiny_patch16_224", kwargs={"num_classes": 10, "in_chans": 1, **size}, input_shape=(1, 32, 32)
    )
    data, device = load_data("digits"), load_device("host")
    given = Artifact(source=source, weights={}, preprocessing=data.preprocessing).with_model(source.build())
    stage = Int4(recipe=None)
    after = stage(given, Context(data=data, device=device, measured=False))
    plain = with_stored_weights(given, Int4Codec(stage.group))
    images = data.train.images[:100]
    wanted, corrected, rounded = (
        onnx_logits(onnx_bytes(each), images, data.preprocessing).mean(0) for each in (given, after, plain)
    )
    assert np.abs(corrected - wanted).sum() < 0.5 * np.abs(rounded - wanted).sum()
    times = [profile_layers(read_onnx(onnx_bytes(each)), device).latency.ms for each in (given, after)]
    assert times[1] == pytest.approx(times[0], rel=0.05)


def test_impossible_settings_and_networks_are_refused(learnt: Artifact, context: Context) -> None:
    int8 = Quantize(calibration="minmax", equalize="none", bias_correction=False, images=32)(learnt, context)
    for stage in STAGES:
        with pytest.raises(ValueError, match="in 8-bit integers already"):
            stage(int8, context)
    shared = replace(learnt, weight_formats={"stem.weight": TensorFormat(bits=4, codebook=16, floating=True)})
    with pytest.raises(ValueError, match=r"those of stem\.weight share values"):
        Half()(shared, context)
    with pytest.raises(ValueError, match=r"Int4\.group must be at least 2, got 1"):
        Int4(group=1)
    with pytest.raises(ValueError, match="at least one must be one to round"):
        train_straight_through(
            learnt, context, recipe=SHORT, codec=BINARY, rounding=lambda weight: torch.sign, chosen=lambda layers: []
        )
    file = Artifact(source=OnnxFile(data=onnx_bytes(learnt)), weights={}, preprocessing=learnt.preprocessing)
    with pytest.raises(ValueError, match="an ONNX file cannot be trained"):
        Binarize(recipe=SHORT)(file, context)


@pytest.mark.parametrize(
    "stage", STAGES, ids=lambda stage: f"{stage.name}-{getattr(stage, 'recipe', None) is not None}"
)
def test_a_file_that_is_read_has_the_weights_of_the_artifact(stage: Stage, learnt: Artifact, context: Context) -> None:
    after = stage(learnt, context)
    read = read_onnx(onnx_bytes(after))
    assert read.weight_bytes == after.workload().weight_bytes

    def kernels(workload: Workload) -> list[tuple[object, ...]]:
        return [(kernel.nodes, kernel.output, kernel.weight_bytes) for kernel in fuse(workload)]

    assert kernels(read) == kernels(after.workload())


@pytest.mark.parametrize("stage", [Half(), Int4()])
def test_integers_after_fewer_bits_are_integers(
    stage: Half | Int4, learnt: Artifact, context: Context, tmp_path: Path
) -> None:
    quantize = Quantize(calibration="minmax", equalize="none", bias_correction=False, images=64)
    again = quantize(stage(learnt, context), context)
    assert not again.weight_formats
    export_onnx(again, tmp_path / "m.onnx")
    assert read_onnx(tmp_path / "m.onnx").format("stem.weight").bits == 8
