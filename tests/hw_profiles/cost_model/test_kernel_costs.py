"""The table of a device: adding up, corrections near what was measured, doubt far from it, and stand-ins."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from hw_profiles.cost_model.features import SCALES, WORK, Term, family, in_a_crowd, network_terms
from hw_profiles.cost_model.kernel_costs import COMMON, LOCAL, CostTable, KernelCost, likeness
from hw_profiles.measurement.random_networks import is_attention
from hw_profiles.network.workload import Op, Workload, WorkloadBuilder
from hw_profiles.runtimes.fusion import fuse
from tests.hw_profiles.synthetic import micro_terms, true_costs

KIND = "conv/pointwise.blocked"
PLACE = (4.0, 5.0, 6.0, 1.0, 0.0, 0.0, 6.0)
PRICED = KernelCost(prices=(2.0, *[0.0] * (len(WORK["conv"]) - 1)), points=(PLACE,), weights=(2.0,))


def term(kind: str, place: tuple[float, ...], amount: float = 1.0) -> Term:
    """One unit of the first thing that has a price."""
    return Term(kind, place, (amount, *[0.0] * (len(WORK[family(kind)]) - 1)))


def cost(name: str, **prices: float) -> KernelCost:
    return KernelCost(prices=tuple(prices.get(each, 0.0) for each in WORK[name]))


@pytest.mark.parametrize("name", [name for name, scales in SCALES.items() if scales])
def test_likeness_is_the_sum_of_a_constant_and_a_gaussian_kernel(name: str) -> None:
    generator = np.random.default_rng(0)
    places, points = (generator.uniform(0, 9, size=(n, len(SCALES[name]))) for n in (5, 7))
    kernel = ConstantKernel(COMMON**2) + ConstantKernel(LOCAL**2) * RBF(SCALES[name])
    np.testing.assert_allclose(likeness(f"{name}/x", places, points), kernel(places, points), rtol=1e-12)


def test_a_correction_holds_at_its_place_and_fades_with_the_distance() -> None:
    table = CostTable({KIND: PRICED})
    at, near, far = (table.total([term(KIND, (4.0 + away, *PLACE[1:]))])[0] for away in (0, 2.2, 40))
    assert at == pytest.approx(2 * (1 + 2 * (0.3**2 + 0.05**2)))
    assert near == pytest.approx(2 * (1 + 2 * (0.3**2 * np.exp(-0.5) + 0.05**2)))
    assert far == pytest.approx(2 * (1 + 2 * 0.05**2))


def test_doubt_grows_with_the_distance_from_what_was_measured() -> None:
    table = CostTable({KIND: PRICED})
    doubts = [table.total([term(KIND, (4.0 + away, *PLACE[1:]))])[1] for away in (0, 1, 2, 4, 8, 40)]
    assert doubts == sorted(doubts)
    assert doubts[0] == pytest.approx(0, abs=1e-12)
    assert doubts[-1] == pytest.approx(0.3 * 2)


def test_no_correction_makes_a_kernel_free() -> None:
    cost = KernelCost(prices=PRICED.prices, points=(PLACE,), weights=(-1000.0,))
    assert CostTable({KIND: cost}).total([term(KIND, PLACE)])[0] == pytest.approx(0.1 * 2)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_prices_are_corrected_by_what_a_gaussian_process_predicts(precision: str) -> None:
    """Of kinds with other numbers of coordinates, of quantities and of points, all at once."""
    networks = micro_terms(precision, [seed for seed in range(40) if not is_attention(seed)])
    draw = np.random.default_rng(0)
    costs = {kind: measured(networks, kind, draw) for kind in {term.kind for terms in networks for term in terms}}
    for terms, (microseconds, doubt) in zip(networks, CostTable(costs).totals(networks), strict=True):
        predicted = np.array([by_scikit_learn(each, costs[each.kind]) for each in terms])
        assert (microseconds, doubt) == pytest.approx(tuple(predicted.sum(axis=0)), rel=1e-9)


def measured(networks: list[tuple[Term, ...]], kind: str, draw: np.random.Generator) -> KernelCost:
    """Random prices, and random corrections, positive or negative, at places near those of the networks."""
    places = np.array(sorted({term.place for terms in networks for term in terms if term.kind == kind}))
    count = draw.integers(1, 9) if SCALES[family(kind)] else 0
    points = draw.choice(places, size=count) + draw.normal(0, 0.5, size=(count, places.shape[1]))
    return KernelCost(
        prices=tuple(draw.uniform(0, 9, size=len(WORK[family(kind)]))),
        points=tuple(map(tuple, points.tolist())),
        weights=tuple(draw.normal(0, 1.5, size=count).tolist()),
    )


def by_scikit_learn(found: Term, cost: KernelCost) -> tuple[float, float]:
    """Microseconds and doubt of one term."""
    price = float(np.dot(found.work, cost.prices))
    if not cost.points:
        return price, 0.0
    near = RBF(SCALES[family(found.kind)])(np.array([found.place]), np.array(cost.points))
    correction = ((ConstantKernel(COMMON**2) + ConstantKernel(LOCAL**2) * RBF(SCALES[family(found.kind)]))(
        np.array([found.place]), np.array(cost.points)
    ) @ cost.weights).item()  # fmt: skip
    return price * max(1 + correction, 0.1), LOCAL * (1 - near.max()) * price


def test_a_network_costs_the_same_among_others() -> None:
    networks = micro_terms("fp32", range(20))
    table = CostTable(true_costs(networks))
    alone = [table.total(terms) for terms in networks]
    assert table.totals(networks[::-1])[::-1] == [pytest.approx(cost, rel=1e-9) for cost in alone]
    assert table.totals([]) == []
    assert table.totals([(), networks[0]]) == [(0, 0), pytest.approx(alone[0], rel=1e-9)]


def test_a_crowd_completes_places_that_lack_it() -> None:
    table = CostTable({KIND: PRICED})
    bare = [term(KIND, PLACE[:-1], amount) for amount in (1.0, 3.0)]
    assert table.totals([bare], 8.0) == [table.total(in_a_crowd(bare, 8.0))]
    assert table.totals([bare], 8.0) != table.totals([bare], PLACE[-1])


def unknown_network() -> Workload:
    """A convolution in groups, one that enlarges, a product of two tensors, a softmax, and one that nobody knows."""
    b = WorkloadBuilder("input", (1, 8, 6, 6))
    x = b.conv("grouped", "input", 8, kernel_size=3, groups=2)
    x = b.append(Op("up", "conv_transpose", (x,), (8, 4, 2, 2), stride=(2, 2), kernel_size=(2, 2)), (1, 4, 12, 12))
    x = b.activation("softmax", b.matmul("product", x, x), "softmax")
    return b.build(b.append(Op("odd", "other", (x,), function="Einsum"), (1, 4, 12, 12)))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_kernels_that_were_never_measured_are_priced_and_in_doubt(precision: str) -> None:
    seeds = [seed for seed in range(60) if not is_attention(seed)]
    table = CostTable(true_costs(micro_terms(precision, seeds)))
    workload = unknown_network().with_precision(precision)
    seen = set()
    for found in network_terms(workload, fuse(workload)):
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
    dear = KernelCost(prices=(3.0, 50.0, *PRICED.prices[2:]))
    table = CostTable({"conv/conv.plain": PRICED, "conv/pointwise.blocked": dear})
    assert table.total([term("conv/grouped.plain", PLACE)])[0] == 2
    assert table.total([term("conv/grouped.blocked", PLACE)])[0] == 3  # the one of its family whose work is dearest


def test_the_macs_of_what_was_never_measured_are_not_free() -> None:
    """A product of matrices, where only sums were measured of its family, costs what the dearest convolution does."""
    costs = {
        "conv/conv.plain": cost("conv", mmacs=10.0),
        "conv/linear.plain": cost("conv", mmacs=4.0),
        "other/add.plain": cost("other", start=1.0),
    }
    work = tuple({"start": 1.0, "mmacs": 2.0}.get(name, 0.0) for name in WORK["other"])
    microseconds, doubt = CostTable(costs).total([Term("other/matmul.plain", (1.0, 1.0, 0.0, 6.0), work)])
    assert microseconds == pytest.approx(1 + 2 * 10)
    assert doubt == pytest.approx(microseconds / 2)


def test_a_family_without_any_price_is_named() -> None:
    with pytest.raises(ValueError, match=r"no price for 'other/softmax.plain' \(known: conv/pointwise.blocked\)"):
        CostTable({KIND: PRICED}).total([term("other/softmax.plain", (1.0, 1.0, 0.0, 6.0))])


def test_costs_that_cannot_be_are_refused() -> None:
    for prices in ((-1.0, 2.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="prices must be at least 0, got"):
            KernelCost(prices=prices)
    with pytest.raises(ValueError, match="points and weights must be as many, got 1 and 2"):
        KernelCost(prices=(1.0,), points=((1.0,),), weights=(1.0, 2.0))
