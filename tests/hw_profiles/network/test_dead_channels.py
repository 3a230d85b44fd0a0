"""Channels that change nothing: found as ONNX Runtime shows them, and free of cost where the runtime drops them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from hw_profiles import load_device, profile
from hw_profiles.devices.c99_program import with_c99_costs
from hw_profiles.network.dead_channels import StoredWeights, without_dead_channels
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.network.workload import Workload, WorkloadBuilder
from hw_profiles.onnx_io.reader import read_without_dead_channels
from hw_profiles.onnx_io.writer import random_weights, write_onnx

DROPS, COMPUTES = "stm32l4r5", "rp2040"
Weights = dict[str, np.ndarray]


def network(first: int = 6, second: int = 8) -> Workload:
    """A separable convolution, and a shortcut around a pointwise one."""
    b = WorkloadBuilder("input", (1, 3, 8, 8))
    x = b.activation("first.relu", b.conv("first", "input", first, kernel_size=3), "relu6")
    x = b.activation("depthwise.relu", b.conv("depthwise", x, first, kernel_size=3, groups=first), "relu")
    x = b.conv("pointwise", x, second, kernel_size=1)
    y = b.conv("branch", x, second, kernel_size=1)
    x = b.flatten("flat", b.global_avg_pool("pool", b.binary("sum", "add", x, y)))
    b.linear("classifier", x, 4)
    return b.build()


def weights_with_dead_channels(workload: Workload, seed: int) -> Weights:
    """Some filters are zero, with biases of either sign, some are too small to count, and some channels are not read."""
    draw = np.random.default_rng(seed)
    weights = {name: array.copy() for name, array in random_weights(workload).items()}
    for name in ("first", "depthwise", "pointwise", "branch"):
        outputs = len(weights[f"{name}.weight"])
        weights[f"{name}.weight"][:] = draw.normal(0, 1, weights[f"{name}.weight"].shape)  # so that all others vary
        weights[f"{name}.bias"][:] = draw.normal(0, 1, outputs)
        weights[f"{name}.weight"][draw.random(outputs) < 0.3] *= draw.choice([0.0, 1e-12])
    weights["first.bias"][:] = -np.abs(weights["first.bias"])  # other numbers would end at the padding, which is zero
    weights["depthwise.weight"][:] = np.abs(weights["depthwise.weight"])  # a ReLU never ends what varies
    for name in ("pointwise", "branch", "classifier"):
        weights[f"{name}.weight"][:, draw.random(weights[f"{name}.weight"].shape[1]) < 0.3] = 0
    return weights


def outputs_of(workload: Workload, weights: Weights, names: tuple[str, ...], images: np.ndarray) -> list[np.ndarray]:
    model = onnx.load_from_string(write_onnx(workload, weights))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != workload.output)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(list(names), {"input": images})
    return found


@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_are_the_channels_that_vary_and_matter_in_onnx_runtime(seed: int) -> None:
    """Each convolution's channels one by one: does it vary over images and places, and does the result change if its
    filter is another one?
    """
    workload, draw = network(), np.random.default_rng(seed)
    weights = weights_with_dead_channels(workload, seed)
    images = draw.normal(0, 2, (16, 3, 8, 8)).astype(np.float32)
    seen = {"first": "first.relu", "depthwise": "depthwise.relu", "pointwise": "pointwise", "branch": "branch"}
    tensors = outputs_of(workload, weights, tuple(seen.values()), images)
    [result] = outputs_of(workload, weights, (workload.output,), images)
    smaller = without_dead_channels(workload, StoredWeights(arrays=weights))
    for name, tensor in zip(seen, tensors, strict=True):
        alive = 0
        for channel in range(tensor.shape[1]):
            other = {key: array.copy() for key, array in weights.items()}
            other[f"{name}.weight"][channel] = draw.normal(0, 2, other[f"{name}.weight"][channel].shape)
            other[f"{name}.bias"][channel] += 3
            [changed] = outputs_of(workload, other, (workload.output,), images)
            alive += np.ptp(tensor[:, channel]) > 1e-6 and np.abs(changed - result).max() > 1e-6
        assert smaller.shapes[seen[name]][1] == max(alive, 1), name


def test_a_network_without_dead_channels_stays_as_it_is() -> None:
    workload = network()
    assert without_dead_channels(workload, StoredWeights(arrays=random_weights(workload))) is workload
    assert without_dead_channels(workload, StoredWeights(arrays={})) is workload  # of unknown weights nothing is said


def test_a_constant_that_is_not_zero_is_kept_where_zeros_surround_it() -> None:
    workload = network()
    weights = {name: array.copy() for name, array in random_weights(workload).items()}
    weights["first.weight"][0] = 0
    for bias, left in ((-1.0, 5), (0.0, 5), (1.0, 6)):
        weights["first.bias"][0] = bias
        assert without_dead_channels(workload, StoredWeights(arrays=weights)).shapes["first.relu"][1] == left


def half_dead(path: Path, *, integers: bool) -> Path:
    """A file whose first two layers have three of six channels that are always zero."""
    workload = network()
    weights = {name: array.copy() for name, array in random_weights(workload).items()}
    weights["first.weight"][::2], weights["first.bias"][::2] = 0, -1
    weights["depthwise.bias"][::2] = -1
    path.write_bytes(write_onnx(workload, weights, quantization=fixed_quantization(workload) if integers else None))
    return path


@pytest.mark.parametrize("integers", [False, True])
def test_a_dead_channel_costs_nothing_where_the_runtime_drops_it(tmp_path: Path, integers: bool) -> None:
    file, narrow = half_dead(tmp_path / "dead.onnx", integers=integers), tmp_path / "narrow.onnx"
    small = network(first=3)
    narrow.write_bytes(write_onnx(small, quantization=fixed_quantization(small) if integers else None))
    drops, computes = load_device(DROPS), load_device(COMPUTES)
    found, expected = profile(file, drops), profile(narrow, drops)
    assert found.latency_ms == pytest.approx(expected.latency_ms)
    assert (found.peak_ram_bytes, found.flash_bytes) == (expected.peak_ram_bytes, expected.flash_bytes)
    assert found.macs == network().macs > expected.macs
    assert profile(file, computes).latency_ms > 1.2 * profile(narrow, computes).latency_ms
    ours = with_c99_costs(drops)  # our own programs compute them
    assert profile(file, ours).latency_ms > 1.2 * profile(narrow, ours).latency_ms


def test_weights_of_integer_files_are_those_of_the_float_file(tmp_path: Path) -> None:
    found = [read_without_dead_channels(half_dead(tmp_path / "a.onnx", integers=each)) for each in (False, True)]
    assert found[0].macs == found[1].macs == network(first=3).macs


def test_a_second_output_is_read() -> None:
    b = WorkloadBuilder("input", (1, 3, 8, 8))
    x = b.conv("stem", "input", 4, kernel_size=3)
    b.conv("boxes", x, 6, kernel_size=1)
    b.conv("classes", x, 5, kernel_size=1)
    workload = replace(b.build("classes"), further_outputs=("boxes",))
    assert without_dead_channels(workload, StoredWeights(arrays=random_weights(workload))) is workload
