"""Costs that are corrected by a few networks, against costs that are known."""

from __future__ import annotations

import numpy as np
import pytest

from hw_profiles.cost_model.features import LAYER_KINDS, CostFeatures
from hw_profiles.cost_model.kernel_costs import CostTable, KernelCost
from hw_profiles.cost_model.plain_costs import plain_costs
from hw_profiles.cost_model.scaling import cost_shares, scale

KINDS = ("first", "conv", "pointwise", "depthwise", "linear", "pool")


def costs_of(draw: np.random.Generator, spread: float) -> dict[str, KernelCost]:
    """A machine whose costs are those of a plain one, each up to a factor of its own."""
    kinds = ("call/call", *(f"layer/{kind}" for kind in LAYER_KINDS))
    plain = plain_costs(dict.fromkeys(kinds, KernelCost(coefficients=())), "int8")
    return {
        kind: KernelCost(coefficients=tuple(c * float(np.exp(draw.normal(0, spread))) for c in cost.coefficients))
        for kind, cost in plain.items()
    }


def network(draw: np.random.Generator) -> list[CostFeatures]:
    scale_of = float(np.exp(draw.normal(0, 1)))
    layers = [
        CostFeatures(f"layer/{kind}", (), (float(draw.integers(1, 20)), *(scale_of * draw.lognormal(0, 1, 3)).tolist()))
        for kind in KINDS
    ]
    return [CostFeatures("call/call", (), (1.0, 20.0, 12.0, 6.0, 2.0)), *layers]


def errors_after(count: int, spread: float, seed: int, noise: float = 0.02) -> float:
    """Mean error on 40 other networks after ``count`` measured ones, from a base that differs by ``spread``."""
    draw = np.random.default_rng(seed)
    base, truth = costs_of(draw, 0.0), CostTable(costs_of(draw, spread))
    networks = [network(draw) for _ in range(count + 40)]
    times = np.array([truth.total(each)[0] for each in networks]) * np.exp(draw.normal(0, noise, len(networks)))
    found = scale(base, networks[:count], times[:count].tolist())
    table = CostTable(found.apply(base))
    predicted = np.array([table.total(each)[0] for each in networks[count:]])
    return float(np.mean(np.abs(predicted / times[count:] - 1)))


def test_the_structure_is_kept_where_it_holds_and_moves_where_it_does_not() -> None:
    alike = [errors_after(5, 0.0, seed) for seed in range(4)]
    assert np.mean(alike) < 0.04
    unlike = [[errors_after(count, 1.0, seed) for seed in range(2)] for count in (3, 10, 40)]
    few, some, many = (float(np.mean(each)) for each in unlike)
    assert many < 0.6 * some < 0.6 * few


def test_what_was_left_out_is_missed_as_much_as_new_networks_are() -> None:
    draw = np.random.default_rng(5)
    base, truth = costs_of(draw, 0.0), CostTable(costs_of(draw, 0.7))
    networks = [network(draw) for _ in range(30)]
    times = np.array([truth.total(each)[0] for each in networks]) * np.exp(draw.normal(0, 0.05, 30))
    found = scale(base, networks, times.tolist())
    for i in (0, 7, 13):
        others = [j for j in range(30) if j != i]
        without = scale(base, [networks[j] for j in others], times[others].tolist())
        missed = np.log(CostTable(without.apply(base)).total(networks[i])[0] / times[i])
        assert found.left_out[i] == pytest.approx(missed, abs=0.06)
    assert found.deviation >= np.sqrt(np.mean(np.square(found.left_out))) - 1e-9


def test_kinds_that_no_network_shows_are_in_doubt() -> None:
    draw = np.random.default_rng(0)
    base, truth = costs_of(draw, 0.0), CostTable(costs_of(draw, 0.8))
    networks = [network(draw) for _ in range(12)]
    found = scale(base, networks, [truth.total(each)[0] for each in networks])
    unseen = {f"layer/{kind}" for kind in LAYER_KINDS} - {f"layer/{kind}" for kind in KINDS}
    assert set(found.doubts) == unseen
    assert all(doubt > 0.1 for doubt in found.doubts.values())
    table = CostTable(found.apply(base))
    assert table.total([CostFeatures("layer/matmul", (), (1.0, 1.0, 1.0, 0.0))])[1] > 0
    assert table.total(networks[0])[1] == 0


def test_one_measurement_is_believed_in_the_mean_only() -> None:
    base = costs_of(np.random.default_rng(0), 0.0)
    one = network(np.random.default_rng(1))
    found = scale(base, [one], [7 * CostTable(base).total(one)[0]])
    assert CostTable(found.apply(base)).total(one)[0] == pytest.approx(7 * CostTable(base).total(one)[0], rel=0.02)
    factors = np.log(list(found.factors.values()))
    assert factors == pytest.approx(np.full(len(factors), np.log(7)), abs=0.35)


def test_a_single_wild_measurement_moves_little() -> None:
    draw = np.random.default_rng(2)
    base = costs_of(draw, 0.0)
    networks = [network(draw) for _ in range(12)]
    times = [CostTable(base).total(each)[0] for each in networks]
    wild = scale(base, networks, [*times[:-1], 3 * times[-1]])
    assert wild.left_out[-1] == pytest.approx(-np.log(3), abs=0.1)
    predicted = [CostTable(wild.apply(base)).total(each)[0] for each in networks[:-1]]
    assert predicted == pytest.approx(times[:-1], rel=0.08)


def test_shares_add_up_to_the_estimate() -> None:
    draw = np.random.default_rng(3)
    base = costs_of(draw, 0.5)
    networks = [network(draw) for _ in range(5)]
    shares = cost_shares(base, networks)
    assert shares.microseconds.sum(axis=1) == pytest.approx([CostTable(base).total(each)[0] for each in networks])
    assert shares.take([3, 1]).microseconds.tolist() == shares.microseconds[[3, 1]].tolist()
