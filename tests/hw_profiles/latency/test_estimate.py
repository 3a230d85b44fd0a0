"""Estimates: the sum of a table, and an interval that says how much to believe it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from scipy import stats

from hw_profiles import Workload
from hw_profiles.cost_model.features import QUANTITIES, family
from hw_profiles.cost_model.kernel_costs import KernelCost
from hw_profiles.latency.estimate import Latency, estimate, upper_bound_ms
from hw_profiles.network.workload import WorkloadBuilder
from hw_profiles.runtimes.fusion import fuse
from tests.hw_profiles.synthetic import device_of


def classifier() -> Workload:
    """Conv (with its ReLU), GlobalAveragePool, ReorderOutput and Gemm to ONNX Runtime."""
    b = WorkloadBuilder("input", (1, 3, 8, 8))
    x = b.activation("act", b.conv("conv", "input", 16, kernel_size=3), "relu")
    return b.build(b.linear("fc", b.flatten("flat", b.global_avg_pool("pool", x)), 10))


def cost(kind: str, **coefficients: float) -> KernelCost:
    return KernelCost(coefficients=tuple(coefficients.get(name, 0.0) for name in QUANTITIES[family(kind)]))


TABLE = {
    "call/call": cost("call/call", start=5, nodes=0.5),
    "conv/conv.first": cost("conv/conv.first", start=1, mmacs=10, output_mb=2, weight_mb=4),
    "other/global_avg_pool.blocked": cost("other/", start=0.7, mvalues=100, kchannels=3),
    "other/reorder.plain": cost("other/", start=0.3),
    "conv/linear.plain": cost("conv/linear.plain", start=0.2, mmacs=20, input_mb=5),
}
BY_HAND = (
    (5 + 4 * 0.5)
    + (1 + 10 * 16 * 27 * 64 / 1e6 + 2 * 4 * 16 * 64 / 1e6 + 4 * 4 * (16 * 27 + 16) / 1e6)
    + (0.7 + 100 * 16 * 64 / 1e6 + 3 * 16 / 1e3)
    + 0.3
    + (0.2 + 20 * 160 / 1e6 + 5 * 4 * 16 / 1e6)
)


def estimated(table: dict[str, KernelCost], *, spread: float = 0.0, cpu: str | None = None) -> Latency:
    workload = classifier()
    return estimate(workload, fuse(workload), device_of({"fp32": table}, spread=spread, cpu=cpu))


def test_an_estimate_is_the_sum_of_its_table() -> None:
    found = estimated(TABLE)
    assert 1000 * found.ms == pytest.approx(BY_HAND)
    assert (found.low_ms, found.high_ms, found.source, found.raw_ms) == (found.ms, found.ms, "estimated", None)


def test_the_interval_holds_nine_of_ten_where_errors_are_as_wide_as_the_spread() -> None:
    found = estimated(TABLE, spread=0.08)
    low, high = stats.lognorm.interval(0.9, 0.08, scale=found.ms)
    assert (found.low_ms, found.high_ms) == (pytest.approx(low), pytest.approx(high))


def test_kernels_unlike_all_measured_ones_widen_the_interval() -> None:
    far = replace(TABLE["conv/conv.first"], points=((9.0, 9.0, 9.0, 9.0, 1.0, 0.0, 9.0),), weights=(0.0,))
    near = replace(far, points=((1.585, 4.0, 6.0, 3.0, 0.0, 0.0, 2.0),))
    widths = [estimated({**TABLE, "conv/conv.first": c}, spread=0.05) for c in (near, far)]
    known, unknown = (found.high_ms / found.ms for found in widths)
    assert known == pytest.approx(estimated(TABLE, spread=0.05).high_ms / estimated(TABLE).ms, rel=1e-3)
    assert unknown > known * 1.005
    assert widths[1].low_ms * widths[1].high_ms == pytest.approx(widths[1].ms ** 2)


def test_numbers_of_another_machine_are_off_by_two_either_way_unless_they_were_corrected_there() -> None:
    workload = classifier()
    device = device_of({"fp32": TABLE}, spread=0.05, cpu="another")
    factors = [
        estimate(workload, fuse(workload), d).high_ms / estimate(workload, fuse(workload), d).ms
        for d in (device, replace(device, calibrated=("int8",)), replace(device, calibrated=("fp32",)))
    ]
    assert factors == [pytest.approx(2), pytest.approx(2), pytest.approx(1.0857, abs=1e-4)]
    here = device_of({"fp32": TABLE}, spread=0.05)
    assert estimate(workload, fuse(workload), here).high_ms / BY_HAND * 1000 == pytest.approx(1.0857, abs=1e-4)
    wide = device_of({"fp32": TABLE}, spread=0.9, cpu="another")
    assert estimate(workload, fuse(workload), wide).high_ms / BY_HAND * 1000 > 4


def test_a_device_elsewhere_keeps_its_own_spread() -> None:
    """Its conditions say where it was measured, not where this runs."""
    workload = classifier()
    device = device_of({"fp32": TABLE}, spread=0.05, measurable=False, cpu="a phone")
    assert estimate(workload, fuse(workload), device).high_ms / BY_HAND * 1000 == pytest.approx(1.0857, abs=1e-4)


def test_what_counts_against_a_limit_is_kept_nine_times_in_ten() -> None:
    """Of an estimate, the ninth decile of the log-normal distribution whose 90 % are the interval."""
    deviation = math.log(1.25) / stats.norm.ppf(0.95)
    expected = stats.lognorm.ppf(0.9, deviation, scale=2.0)
    assert upper_bound_ms(2.0, 2.5, "estimated") == pytest.approx(expected)
    assert upper_bound_ms(2.0, 2.5, "measured") == 2.5
    assert upper_bound_ms(2.0, 2.0, "estimated") == 2.0


def test_a_kernel_without_a_cost_or_a_fallback_is_named() -> None:
    table = {kind: c for kind, c in TABLE.items() if family(kind) != "other"}
    with pytest.raises(ValueError, match="the device has no cost for 'other/global_avg_pool"):
        estimated(table)
