"""Networks of which some operations are in float and others in int8: their files, formats and kernels."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from hw_profiles import load_device
from hw_profiles.latency.estimate import estimate
from hw_profiles.memory.planner import plan
from hw_profiles.network.quantization import (
    fixed_quantization,
    quantized_weight,
    quantized_workload,
    weight_scales,
    with_in_float,
)
from hw_profiles.network.workload import VIEWS, WEIGHTED, Workload, WorkloadBuilder
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from hw_profiles.runtimes.fusion import fuse, is_mixed
from search_spaces import list_presets, list_spaces, preset, sample


def saved(data: bytes, folder: Path) -> list[onnx.NodeProto]:
    """The nodes of the graph that ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return list(onnx.load(folder / "optimized.onnx").graph.node)


def networks() -> list[tuple[str, Workload]]:
    presets = [(name, preset(name, input_shape=(3, 64, 64)).workload()) for name in list_presets()[::2]]
    return [
        *presets,
        *((f"{space} {seed}", sample(space, seed=seed).workload()) for space in list_spaces() for seed in (3, 8)),
    ]


def drawn(workload: Workload, number: int) -> list[str]:
    """Some of the operations with weights: from one of fifty to most of them."""
    draw = random.Random(number)
    names = [op.name for op in workload.ops if op.kind in WEIGHTED]
    return draw.sample(names, max(1, int(len(names) * (0.02, 0.1, 0.3, 0.6, 0.9)[number % 5])))


def test_mixed_networks_have_the_kernels_of_onnx_runtime(tmp_path: Path) -> None:
    unequal = {}
    for number, (name, workload) in enumerate(networks()):
        mixed = with_in_float(workload, fixed_quantization(workload), drawn(workload, number))
        nodes = Counter(node.op_type for node in saved(write_onnx(workload, quantization=mixed), tmp_path))
        nodes.subtract({kind: nodes[kind] for kind in ("Flatten", "Reshape")})
        formatted = quantized_workload(workload, mixed)
        assert is_mixed(formatted)
        ours = Counter(node for kernel in fuse(formatted) for node in kernel.nodes)
        if +nodes != ours:
            unequal[name] = (+nodes - ours, ours - nodes)
    assert unequal == {}


def test_kernels_of_mixed_networks_compute_all_and_read_only_what_is_there() -> None:
    device = load_device("host")
    for number, (_, workload) in enumerate(networks()):
        formatted = quantized_workload(
            workload, with_in_float(workload, fixed_quantization(workload), drawn(workload, number))
        )
        kernels = fuse(formatted)
        assert sum(kernel.macs for kernel in kernels) == workload.macs
        fused = sorted(op.name for kernel in kernels for op in kernel.ops)
        assert fused == sorted(op.name for op in workload.ops if op.kind not in VIEWS)
        assert plan(formatted, kernels).peak_bytes >= workload.with_precision("int8").tensor_bytes(workload.input)
        assert 0 < estimate(formatted, kernels, device).low_ms < estimate(formatted, kernels, device).high_ms


@pytest.mark.parametrize("name", ["stages.0.0.conv1", "classifier"])
def test_an_operation_in_float_is_computed_with_its_own_weights(name: str, tmp_path: Path) -> None:
    """ONNX Runtime would round the weights of a float convolution between two integer tensors by itself."""
    workload = preset("resnet8", input_shape=(3, 16, 16)).workload()
    mixed = with_in_float(workload, fixed_quantization(workload), [name])
    data = write_onnx(workload, quantization=mixed)
    assert [node.op_type for node in saved(data, tmp_path)].count("QLinearConv" if "conv" in name else "QGemm") == (
        sum(op.kind == ("conv" if "conv" in name else "linear") for op in workload.ops) - 1
    )
    weights = random_weights(workload)
    altered = {**weights, f"{name}.weight": weights[f"{name}.weight"] * np.float32(1.001)}  # less than a step of 8 bits
    other = write_onnx(workload, altered, quantization=mixed)
    x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    if name == "classifier":
        bias = run(
            write_onnx(
                workload, {**weights, "classifier.weight": 0 * weights["classifier.weight"]}, quantization=mixed
            ),
            x,
        )
        np.testing.assert_allclose(run(other, x) - bias, 1.001 * (run(data, x) - bias), rtol=1e-3, atol=1e-4)
    else:
        assert np.abs(run(other, x) - run(data, x)).max() > 0


def test_what_lies_between_operations_in_float_is_not_rounded() -> None:
    builder = WorkloadBuilder("input", (1, 4, 8, 8))
    x = builder.activation("first.act", builder.conv("first", "input", 8, kernel_size=3), "hard_swish")
    x = builder.conv("second", x, 8, kernel_size=1)
    workload = builder.build(builder.conv("third", x, 4, kernel_size=1))
    mixed = with_in_float(workload, fixed_quantization(workload), ["first", "second"])
    assert sorted(mixed.activations) == ["second", "third"]
    weights, images = (
        random_weights(workload),
        np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32),
    )
    got = run(write_onnx(workload, weights, quantization=mixed), images)

    def conv(value: torch.Tensor, name: str, weight: NDArray[np.float32]) -> torch.Tensor:
        bias = torch.from_numpy(weights[f"{name}.bias"])
        return torch.nn.functional.conv2d(value, torch.from_numpy(weight), bias, padding=weight.shape[2] // 2)

    value = torch.nn.functional.hardswish(conv(torch.from_numpy(images), "first", weights["first.weight"]))
    value = conv(value, "second", weights["second.weight"])
    value = ((value / 0.05).round() + 128).clamp(0, 255).sub(128) * 0.05
    third = weights["third.weight"]
    rounded = quantized_weight(third, weight_scales(third)) * weight_scales(third).reshape(-1, 1, 1, 1)
    expected = conv(value, "third", rounded.astype(np.float32)).numpy()
    expected = (np.clip(np.rint(expected / 0.05) + 128, 0, 255) - 128) * 0.05
    assert np.abs(got - expected).max() < 0.051  # one step, where float sums fall on either side of a half
    assert np.mean(np.abs(got - expected) < 1e-4) > 0.97


def test_the_formats_say_what_is_stored() -> None:
    workload = preset("resnet8").workload()
    int8, mixed = fixed_quantization(workload), with_in_float(workload, fixed_quantization(workload), ["stem"])
    assert quantized_workload(workload, int8).formats == workload.with_precision("int8").formats
    formatted = quantized_workload(workload, mixed)
    assert {formatted.format(name).bits for name in ("input", "stem", "stem.act", "stem.weight", "stem.bias")} == {32}
    assert formatted.weight_bytes - workload.with_precision("int8").weight_bytes == 3 * 16 * 3 * 3 * 3 - 4 * 16


def run(data: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    made: NDArray[np.float32] = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(
        None, {"input": images}
    )[0]
    return made
