"""The table of a device: adding up, corrections near what was measured, doubt far from it, and stand-ins."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from hw_profiles.cost_model.features import (
    QUANTITIES,
    SCALES,
    CostFeatures,
    family,
    in_network_of_size,
    network_features,
)
from hw_profiles.cost_model.kernel_costs import COMMON, LOCAL, CostTable, KernelCost, correction_covariance
from hw_profiles.measurement.random_networks import is_attention
from hw_profiles.network.workload import Op, Workload, WorkloadBuilder
from hw_profiles.runtimes.fusion import fuse
from tests.hw_profiles.synthetic import micro_features, true_costs

KIND = "conv/pointwise.blocked"
COORDINATES = (4.0, 5.0, 6.0, 1.0, 0.0, 0.0, 6.0)
KNOWN = KernelCost(coefficients=(2.0, *[0.0] * (len(QUANTITIES["conv"]) - 1)), points=(COORDINATES,), weights=(2.0,))


def features(kind: str, coordinates: tuple[float, ...], amount: float = 1.0) -> CostFeatures:
    """One unit of the first quantity that has a coefficient."""
    return CostFeatures(kind, coordinates, (amount, *[0.0] * (len(QUANTITIES[family(kind)]) - 1)))


def cost(name: str, **coefficients: float) -> KernelCost:
    return KernelCost(coefficients=tuple(coefficients.get(each, 0.0) for each in QUANTITIES[name]))


@pytest.mark.parametrize("name", [name for name, scales in SCALES.items() if scales])
def test_likeness_is_the_sum_of_a_constant_and_a_gaussian_kernel(name: str) -> None:
    generator = np.random.default_rng(0)
    locations, points = (generator.uniform(0, 9, size=(n, len(SCALES[name]))) for n in (5, 7))
    kernel = ConstantKernel(COMMON**2) + ConstantKernel(LOCAL**2) * RBF(SCALES[name])
    np.testing.assert_allclose(
        correction_covariance(f"{name}/x", locations, points), kernel(locations, points), rtol=1e-12
    )


def test_a_correction_holds_at_its_place_and_fades_with_the_distance() -> None:
    table = CostTable({KIND: KNOWN})
    at, near, far = (table.total([features(KIND, (4.0 + away, *COORDINATES[1:]))])[0] for away in (0, 2.2, 40))
    assert at == pytest.approx(2 * (1 + 2 * (0.3**2 + 0.05**2)))
    assert near == pytest.approx(2 * (1 + 2 * (0.3**2 * np.exp(-0.5) + 0.05**2)))
    assert far == pytest.approx(2 * (1 + 2 * 0.05**2))


def test_doubt_grows_with_the_distance_from_what_was_measured() -> None:
    table = CostTable({KIND: KNOWN})
    doubts = [table.total([features(KIND, (4.0 + away, *COORDINATES[1:]))])[1] for away in (0, 1, 2, 4, 8, 40)]
    assert doubts == sorted(doubts)
    assert doubts[0] == pytest.approx(0, abs=1e-12)
    assert doubts[-1] == pytest.approx(0.3 * 2)


def test_no_correction_makes_a_kernel_free() -> None:
    cost = KernelCost(coefficients=KNOWN.coefficients, points=(COORDINATES,), weights=(-1000.0,))
    assert CostTable({KIND: cost}).total([features(KIND, COORDINATES)])[0] == pytest.approx(0.1 * 2)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_costs_are_corrected_by_what_a_gaussian_process_predicts(precision: str) -> None:
    """Of kinds with other numbers of coordinates, of quantities and of points, all at once."""
    networks = micro_features(precision, [seed for seed in range(40) if not is_attention(seed)])
    draw = np.random.default_rng(0)
    costs = {
        kind: measured(networks, kind, draw)
        for kind in {features.kind for all_features in networks for features in all_features}
    }
    for all_features, (microseconds, doubt) in zip(networks, CostTable(costs).totals(networks), strict=True):
        predicted = np.array([by_scikit_learn(each, costs[each.kind]) for each in all_features])
        assert (microseconds, doubt) == pytest.approx(tuple(predicted.sum(axis=0)), rel=1e-9)


def measured(networks: list[tuple[CostFeatures, ...]], kind: str, draw: np.random.Generator) -> KernelCost:
    """Random coefficients, and random corrections, positive or negative, at coordinates near those of the networks."""
    locations = np.array(
        sorted(
            {features.coordinates for all_features in networks for features in all_features if features.kind == kind}
        )
    )
    count = draw.integers(1, 9) if SCALES[family(kind)] else 0
    points = draw.choice(locations, size=count) + draw.normal(0, 0.5, size=(count, locations.shape[1]))
    return KernelCost(
        coefficients=tuple(draw.uniform(0, 9, size=len(QUANTITIES[family(kind)]))),
        points=tuple(map(tuple, points.tolist())),
        weights=tuple(draw.normal(0, 1.5, size=count).tolist()),
    )


def by_scikit_learn(found: CostFeatures, cost: KernelCost) -> tuple[float, float]:
    """Microseconds and doubt of one term."""
    linear_cost = float(np.dot(found.quantities, cost.coefficients))
    if not cost.points:
        return linear_cost, 0.0
    near = RBF(SCALES[family(found.kind)])(np.array([found.coordinates]), np.array(cost.points))
    correction = ((ConstantKernel(COMMON**2) + ConstantKernel(LOCAL**2) * RBF(SCALES[family(found.kind)]))(
        np.array([found.coordinates]), np.array(cost.points)
    ) @ cost.weights).item()  # fmt: skip
    return linear_cost * max(1 + correction, 0.1), LOCAL * (1 - near.max()) * linear_cost


def test_a_network_costs_the_same_among_others() -> None:
    networks = micro_features("fp32", range(20))
    table = CostTable(true_costs(networks))
    alone = [table.total(all_features) for all_features in networks]
    assert table.totals(networks[::-1])[::-1] == [pytest.approx(cost, rel=1e-9) for cost in alone]
    assert table.totals([]) == []
    assert table.totals([(), networks[0]]) == [(0, 0), pytest.approx(alone[0], rel=1e-9)]


def test_a_network_size_completes_coordinates_that_lack_it() -> None:
    table = CostTable({KIND: KNOWN})
    bare = [features(KIND, COORDINATES[:-1], amount) for amount in (1.0, 3.0)]
    assert table.totals([bare], 8.0) == [table.total(in_network_of_size(bare, 8.0))]
    assert table.totals([bare], 8.0) != table.totals([bare], COORDINATES[-1])


def unknown_network() -> Workload:
    """A convolution in groups, one that enlarges, a product of two tensors, a softmax, and one that nobody knows."""
    b = WorkloadBuilder("input", (1, 8, 6, 6))
    x = b.conv("grouped", "input", 8, kernel_size=3, groups=2)
    x = b.append(Op("up", "conv_transpose", (x,), (8, 4, 2, 2), stride=(2, 2), kernel_size=(2, 2)), (1, 4, 12, 12))
    x = b.activation("softmax", b.matmul("product", x, x), "softmax")
    return b.build(b.append(Op("odd", "other", (x,), function="Einsum"), (1, 4, 12, 12)))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_kernels_that_were_never_measured_are_estimated_and_in_doubt(precision: str) -> None:
    seeds = [seed for seed in range(60) if not is_attention(seed)]
    table = CostTable(true_costs(micro_features(precision, seeds)))
    workload = unknown_network().with_precision(precision)
    seen = set()
    for found in network_features(workload, fuse(workload)):
        microseconds, doubt = table.total([found])
        assert microseconds > 0
        if found.kind.partition("/")[2].partition(".")[0] in (
            "grouped",
            "conv_transpose",
            "matmul",
            "softmax",
            "other",
        ):
            seen.add(found.kind)
            assert doubt == pytest.approx(0.5 * microseconds)
    assert len(seen) == 5, seen


def test_a_convolution_in_groups_costs_what_one_over_all_channels_does() -> None:
    dear = KernelCost(coefficients=(3.0, 50.0, *KNOWN.coefficients[2:]))
    table = CostTable({"conv/conv.plain": KNOWN, "conv/pointwise.blocked": dear})
    assert table.total([features("conv/grouped.plain", COORDINATES)])[0] == 2
    assert (
        table.total([features("conv/grouped.blocked", COORDINATES)])[0] == 3
    )  # the one of its family whose work is dearest


def test_the_macs_of_what_was_never_measured_are_not_free() -> None:
    """A product of matrices, where only sums were measured of its family, costs what the dearest convolution does."""
    costs = {
        "conv/conv.plain": cost("conv", mmacs=10.0),
        "conv/linear.plain": cost("conv", mmacs=4.0),
        "other/add.plain": cost("other", start=1.0),
    }
    quantities = tuple({"start": 1.0, "mmacs": 2.0}.get(name, 0.0) for name in QUANTITIES["other"])
    microseconds, doubt = CostTable(costs).total([CostFeatures("other/matmul.plain", (1.0, 1.0, 0.0, 6.0), quantities)])
    assert microseconds == pytest.approx(1 + 2 * 10)
    assert doubt == pytest.approx(microseconds / 2)
    costs |= {
        "integer_depthwise/depthwise": cost("integer_depthwise", mmacs=600.0),  # of 16 at once
        "other/add.plain": cost("other", start=1.0, mmacs=700.0),  # as of a pool, whose windows are no MACs
    }
    microseconds, _ = CostTable(costs).total([CostFeatures("other/matmul.plain", (1.0, 1.0, 0.0, 6.0), quantities)])
    assert microseconds == pytest.approx(1 + 2 * 10, rel=1e-3)


def test_an_unknown_function_costs_what_the_dearest_one_does() -> None:
    costs = {f"fused/{name}.plain": cost("fused", mvalues=value) for name, value in (("relu6", 1.0), ("tanh", 9.0))}
    assert CostTable(costs).total([CostFeatures("fused/elu.plain", (1.0, 6.0), (2.0,))])[0] == 18


def test_a_family_without_any_cost_is_named() -> None:
    with pytest.raises(ValueError, match=r"no cost for 'other/softmax.plain' \(known: conv/pointwise.blocked\)"):
        CostTable({KIND: KNOWN}).total([features("other/softmax.plain", (1.0, 1.0, 0.0, 6.0))])


def test_costs_that_cannot_be_are_refused() -> None:
    for coefficients in ((-1.0, 2.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="coefficients must be at least 0, got"):
            KernelCost(coefficients=coefficients)
    with pytest.raises(ValueError, match="points and weights must have the same length, got 1 and 2"):
        KernelCost(coefficients=(1.0,), points=((1.0,),), weights=(1.0, 2.0))
