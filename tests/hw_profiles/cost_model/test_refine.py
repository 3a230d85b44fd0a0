"""Costs of one machine that are corrected to another one, kernel by kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hw_profiles.cost_model.features import SCALES, CostFeatures, family
from hw_profiles.cost_model.kernel_costs import KernelCost
from hw_profiles.cost_model.refine import refine
from tests.hw_profiles.synthetic import micro_features, microseconds, true_costs

COSTS = true_costs(micro_features("int8", range(160)))


def elsewhere(width: float) -> dict[str, KernelCost]:
    """A machine whose kernels cost otherwise here and there, as far as the sizes go."""
    draw = np.random.default_rng(3)
    changed = {}
    for kind, cost in COSTS.items():
        weights = tuple(weight + width * draw.normal() for weight in cost.weights)
        changed[kind] = replace(cost, weights=weights) if SCALES[family(kind)] else cost
    return changed


def errors(costs: dict[str, KernelCost], truth: dict[str, KernelCost]) -> np.ndarray:
    unseen = micro_features("int8", range(100, 160))
    return np.abs(microseconds(costs, unseen) / microseconds(truth, unseen) - 1)


def test_kernels_that_cost_otherwise_are_found() -> None:
    truth, measured = elsewhere(2.0), micro_features("int8", range(40))
    found = refine(COSTS, measured, microseconds(truth, measured).tolist())
    before, after = (errors(costs, truth).mean() for costs in (COSTS, dict(found.costs)))
    assert after < 0.6 * before


def test_the_errors_of_left_out_networks_are_those_of_unseen_ones() -> None:
    truth, measured = elsewhere(2.0), micro_features("int8", range(60))
    found = refine(COSTS, measured, microseconds(truth, measured).tolist())
    unseen = errors(dict(found.costs), truth).mean()
    assert 0.6 < np.abs(np.expm1(found.left_out)).mean() / unseen < 2.0


def test_the_same_machine_keeps_its_costs_whatever_the_noise() -> None:
    measured = micro_features("int8", range(30))
    for deviation, most in ((0.01, 0.0), (0.03, 0.008)):
        noise = np.exp(np.random.default_rng(0).normal(0, deviation, len(measured)))
        found = refine(COSTS, measured, (noise * microseconds(COSTS, measured)).tolist())
        assert errors(dict(found.costs), COSTS).mean() <= most


def test_a_wrong_time_counts_for_little() -> None:
    truth, measured = elsewhere(2.0), micro_features("int8", range(40))
    times = microseconds(truth, measured)
    times[[3, 17]] *= 3
    found = refine(COSTS, measured, times.tolist())
    assert errors(dict(found.costs), truth).mean() < 0.75 * errors(COSTS, truth).mean()
    assert abs(found.left_out[3]) > 0.5


def test_a_kind_that_no_network_showed_keeps_its_cost() -> None:
    features = CostFeatures("fused/sum.blocked", (3.0, 4.0), (5.0,))
    costs = {
        "fused/sum.blocked": KernelCost(coefficients=(2.0,), points=((3.0, 4.0),), weights=(0.0,)),
        "fused/relu6.blocked": KernelCost(coefficients=(2.0,), points=((3.0, 4.0),), weights=(0.5,)),
        "call/call": KernelCost(coefficients=(1.0, 0.0, 0.0, 0.0, 0.0)),
    }
    found = refine(costs, [[features]] * 8, [12.0] * 8).costs
    assert found["fused/relu6.blocked"] == costs["fused/relu6.blocked"]
    assert found["call/call"] == costs["call/call"]
    assert found["fused/sum.blocked"].weights[0] > 0
