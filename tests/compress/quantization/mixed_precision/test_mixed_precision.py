"""Mixed precision by layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from compress import Artifact, Context, Quantize
from compress.networks.as_artifact import as_artifact
from compress.networks.network_graph import network_graph
from compress.networks.network_source import OnnxFile
from compress.networks.onnx_export import onnx_bytes, onnx_logits
from compress.quantization.int8.fidelity import FidelityEvaluator
from compress.quantization.int8.ptq import Calibrated
from compress.quantization.mixed_precision import measured_groups
from compress.quantization.mixed_precision.mixed_precision import MixedPrecision
from compress.quantization.mixed_precision.precision_sensitivity import (
    EightBits,
    FourBits,
    Sensitivity,
    ranked,
    sensitivity,
)
from compress.training.evaluation import accuracy
from hw_profiles import Budget
from hw_profiles.devices.device import Device
from hw_profiles.network.graph import Graph
from hw_profiles.onnx_io.writer import write_graph

HURT = "stages.1.0.conv2"


@pytest.fixture(scope="module")
def int8(learnt: Artifact, context: Context) -> Artifact:
    return Quantize(calibration="minmax", equalize="none", bias_correction=False, images=128)(learnt, context)


@pytest.fixture(scope="module")
def hurt(int8: Artifact) -> Artifact:
    """The same with one weight scale, of one operation, so large that nothing of it is left in integers."""
    assert int8.quantization is not None
    scales = {**int8.quantization.weights, f"{HURT}.weight": np.float32(10.0)}
    return replace(int8, quantization=replace(int8.quantization, weights=scales))


def right(artifact: Artifact, context: Context) -> float:
    logits = onnx_logits(onnx_bytes(artifact), context.data.val.images, artifact.preprocessing)
    return accuracy(logits.argmax(1), context.data.val)


def eight_bits(artifact: Artifact) -> EightBits:
    assert artifact.quantization is not None
    return EightBits(artifact, network_graph(artifact), artifact.quantization)


def test_the_table_finds_the_operation_that_is_hurt(hurt: Artifact, context: Context) -> None:
    images = hurt.preprocessing.tensor(context.data.train.some(64, context.seed).images)
    table = sensitivity(eight_bits(hurt), FidelityEvaluator(write_graph(network_graph(hurt)), images), context)
    assert [row.name for row in table] == [op.name for op in hurt.arch.workload().ops if op.kind in ("conv", "linear")]
    worst = max(table, key=lambda row: row.divergence)
    assert worst.name == HURT
    others = [row.divergence for row in table if row.name != HURT]
    assert worst.divergence > 20 * max(others)
    saved = {row.name: row.saved_bytes for row in table}
    assert saved[HURT] == 3 * 32 * 32 * 9 - 4 * 32  # three bytes of each weight, less a scale for each channel


def test_what_is_hurt_is_put_in_float_and_no_more(hurt: Artifact, int8: Artifact, context: Context) -> None:
    after = MixedPrecision(images=64)(hurt, replace(context, max_accuracy_drop=10.0))
    assert after.metrics["mixed"]["raised"] == [HURT]
    assert right(hurt, context) < right(int8, context) - 0.2
    assert right(after, context) > right(int8, context) - 0.05
    held = {tensor.name for tensor in onnx.load_model_from_string(onnx_bytes(after)).graph.initializer}
    assert f"{HURT}.weight" in held
    assert f"{HURT}.weight.quantized" not in held
    assert after.workload().format(f"{HURT}.weight").bits == 32
    assert after.workload().weight_bytes > int8.workload().weight_bytes


def test_on_this_machine_blocks_are_measured_apart(
    int8: Artifact, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if one block ran a fifth faster in float, and another seemed to, but not surely."""
    sides: list[int] = []

    def compare(model: Path, other: Path, device: Device, *, max_rounds: int) -> tuple[float, float, float]:
        sides.append(other.stat().st_size)
        larger = {name for name in weights_in_float(model) if name not in weights_in_float(other)}
        return {"stages.1.0.conv1.weight": (0.8, 0.7, 0.9), "stages.2.0.conv1.weight": (0.9, 0.7, 1.1)}.get(
            min(larger), (1.2, 1.1, 1.3)
        )

    monkeypatch.setattr(measured_groups, "compare", compare)
    stage = MixedPrecision(images=32, only_faster=True, max_accuracy_drop=100)
    after = stage(int8, replace(context, measured=True))
    assert {name.rpartition(".")[0] for name in after.metrics["mixed"]["raised"]} == {"stages.1.0"}
    assert len({*sides}) == 2  # each is compared with the best so far
    assert len(sides) == 4  # the stem with the classifier, and each block
    stage(int8, replace(context, measured=False))
    assert len(sides) == 4


def weights_in_float(path: Path) -> set[str]:
    return {
        t.name for t in onnx.load(path).graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1
    }


def test_a_float_network_is_quantized_first_and_needs_nothing_in_float(learnt: Artifact, context: Context) -> None:
    few = replace(context.data, train=context.data.train.some(128, 0))
    after = MixedPrecision(images=64)(learnt, replace(context, data=few, max_accuracy_drop=10.0))
    assert after.precision == "int8"
    assert after.metrics["mixed"]["raised"] == []
    assert after.metrics["quantization"]["tried"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("as_file", [False, True])
def test_any_network_whose_file_says_all_of_it_is_mixed(
    as_file: bool, learnt: Artifact, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = as_artifact(learnt.model(), context.data)
    given = replace(module, source=OnnxFile(data=onnx_bytes(module)), weights={}) if as_file else module
    low = MixedPrecision(images=64)(given, replace(context, max_accuracy_drop=100.0))
    assert (low.metrics["mixed"]["raised"], low.precision) == ([], "int8")
    assert len(low.metrics["mixed"]["sensitivity"]) == 10

    calibrated = Quantize.calibrated

    def hurt(stage: Quantize, graph: Graph, *others: Any) -> Calibrated:
        found = calibrated(stage, graph, *others)
        worst = [op.weight for op in graph.workload.ops if op.kind == "conv"][5]
        scales = replace(found.quantization, weights={**found.quantization.weights, worst: np.float32(10.0)})
        return replace(found, quantization=scales)

    monkeypatch.setattr(Quantize, "calibrated", hurt)
    after = MixedPrecision(images=64)(given, replace(context, max_accuracy_drop=10.0))
    assert len(after.metrics["mixed"]["raised"]) == 1
    assert right(after, context) > right(low, context) - 0.05
    assert after.workload().weight_bytes > low.workload().weight_bytes


def test_a_limit_of_bytes_keeps_the_operation_low(hurt: Artifact, context: Context) -> None:
    tight = replace(context, budget=Budget(flash_bytes=hurt.workload().weight_bytes + 1000))
    after = MixedPrecision(images=64)(hurt, tight)
    assert HURT not in after.metrics["mixed"]["raised"]
    assert after.workload().weight_bytes <= hurt.workload().weight_bytes + 1000
    assert after.metrics["mixed"]["points_lost"] > context.max_accuracy_drop


@pytest.mark.slow
def test_weights_of_4_bits_stay_where_they_cost_little(learnt: Artifact, context: Context) -> None:
    everything = FourBits(learnt, network_graph(learnt), group=1000)()
    stage = MixedPrecision(bits=4, group=1000, images=64)
    loose = stage(learnt, replace(context, max_accuracy_drop=100.0))
    assert loose.weight_formats == everything.weight_formats
    exact = stage(learnt, replace(context, max_accuracy_drop=-100.0))  # cannot be kept: all are raised
    assert len(exact.metrics["mixed"]["raised"]) == 10
    assert not exact.weight_formats
    table = loose.metrics["mixed"]["sensitivity"]
    first = next(ranked([Sensitivity(**row) for row in table], by_latency=False))
    assert exact.metrics["mixed"]["raised"][0] == first.name


def test_an_int8_file_with_weights_of_4_bits_is_half_as_large_and_computes_in_8(
    int8: Artifact, context: Context
) -> None:
    names = [op.name for op in int8.arch.workload().ops if op.kind == "conv"]
    graph = network_graph(int8)
    after = FourBits(int8, graph)([op.name for op in graph.workload.ops if op.name not in names])
    weights = sum(np.prod(op.weight_shape) for op in int8.arch.workload().ops if op.kind == "conv")
    assert len(onnx_bytes(int8)) - len(onnx_bytes(after)) == pytest.approx(weights / 2, rel=0.05)
    assert int8.workload().weight_bytes - after.workload().weight_bytes == weights / 2
    assert right(after, context) > right(int8, context) - 0.4
    mixed = MixedPrecision(bits=4, images=64)(int8, replace(context, max_accuracy_drop=50.0))
    assert mixed.metrics["mixed"]["raised"] == []
    assert mixed.precision == "int8"
    assert {stored.bits for stored in mixed.weight_formats.values()} == {4}


def test_impossible_settings_are_refused(learnt: Artifact, int8: Artifact, context: Context) -> None:
    with pytest.raises(ValueError, match="bits must be one of 8, 4, got 2"):
        MixedPrecision(bits=2)
    with pytest.raises(ValueError, match=r"MixedPrecision\.group must be at least 2, got 0"):
        MixedPrecision(group=0)
    with pytest.raises(ValueError, match="images must be at least 1"):
        MixedPrecision(images=0)
    with pytest.raises(ValueError, match="all operations in int8 is required"):
        MixedPrecision(images=8)(eight_bits(int8)(["stem"]), context)
