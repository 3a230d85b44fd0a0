"""Runtimes whose layouts are not modeled: layer by layer."""

from __future__ import annotations

import pytest

from hw_profiles.cost_model.features import LAYER_KINDS, kernel_features, network_features
from hw_profiles.memory.planner import plan
from hw_profiles.network.workload import Workload, WorkloadBuilder
from hw_profiles.runtimes.fusion import RUNTIMES, fuse
from search_spaces import list_presets, preset

LAYERED = [name for name in RUNTIMES if name != "ort"]


def small(function: str) -> Workload:
    builder = WorkloadBuilder("input", (1, 3, 8, 8))
    x = builder.activation("act", builder.conv("stem", "input", 8, kernel_size=3), function)
    x = builder.conv("depthwise", x, 8, kernel_size=3, groups=8)
    x = builder.binary("sum", "add", x, "act")
    return builder.build(x)


@pytest.mark.parametrize("runtime", LAYERED)
def test_all_macs_and_weights_are_in_some_kernel(runtime: str) -> None:
    for name in list_presets():
        workload = preset(name).workload().with_precision("int8")
        kernels = fuse(workload, runtime)
        features = [kernel_features(workload, kernel) for kernel in kernels]
        assert sum(each.quantities[1] for [each] in features) * 1e6 == pytest.approx(workload.macs)
        weights = sum(each.quantities[3] for [each] in features) * 1e6
        assert weights == pytest.approx(workload.weight_bytes, rel=0.2)  # scales are counted with weights, not moved
        assert {each.kind.partition("/")[2] for [each] in features} <= set(LAYER_KINDS)


def test_tensorflow_lite_takes_up_a_relu_and_no_other_function() -> None:
    for function, kernels in (("relu6", 3), ("hard_swish", 4)):
        assert len(fuse(small(function), "tflite")) == kernels
        assert len(fuse(small(function), "ncnn")) == 3


def test_a_kernel_moves_what_it_reads_and_writes() -> None:
    workload = small("relu").with_precision("int8")
    call, first, depthwise, add = network_features(workload, fuse(workload, "tflite"))
    assert call.kind == "call/call"
    assert [each.kind for each in (first, depthwise, add)] == ["layer/first", "layer/depthwise", "layer/elementwise"]
    assert first.quantities == pytest.approx((1, 3 * 9 * 8 * 64 / 1e6, (3 + 8) * 64 / 1e6, (3 * 9 * 8 + 4 * 8) / 1e6))
    assert depthwise.quantities[1:3] == pytest.approx((9 * 8 * 64 / 1e6, 2 * 8 * 64 / 1e6))
    assert add.quantities[1:] == pytest.approx((0, 3 * 8 * 64 / 1e6, 0))


@pytest.mark.parametrize("runtime", LAYERED)
def test_memory_holds_what_lives_at_once(runtime: str) -> None:
    """Two tensors of the last block and its sum; a static arena may write the sum over one of them."""
    workload = small("relu").with_precision("int8")
    found = plan(workload, fuse(workload, runtime), runtime).arena_bytes
    assert 2 * 8 * 64 <= found <= 3 * 8 * 64
