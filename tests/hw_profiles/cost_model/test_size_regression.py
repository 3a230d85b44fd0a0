"""Costs by size alone, and their average with costs by kind of kernel."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.cost_model.kernel_costs import KernelCost
from hw_profiles.cost_model.plain_costs import plain_costs
from hw_profiles.cost_model.scaling import quantity_group, scale
from hw_profiles.cost_model.size_regression import mixture, size_regression
from tests.hw_profiles.synthetic import micro_features, microseconds, true_costs

COSTS = true_costs(micro_features("int8", range(160)))
PLAIN = plain_costs(COSTS, "int8")
FACTORS = {"start": 3.0, "nodes": 3.0, "macs": 2.0, "values": 0.0, "weight": 5.0}
MEASURED, UNSEEN = micro_features("int8", range(12)), micro_features("int8", range(100, 160))


def by_size(factors: dict[str, float] = FACTORS, call: float = FACTORS["start"]) -> dict[str, KernelCost]:
    """A machine on which only sizes count."""
    return {
        kind: replace(
            cost,
            coefficients=tuple(
                each * (call if kind == "call/call" else factors[quantity_group(kind, i)])
                for i, each in enumerate(cost.coefficients)
            ),
        )
        for kind, cost in PLAIN.items()
    }


def test_a_machine_on_which_only_sizes_count_is_found_and_what_costs_nothing_costs_nothing() -> None:
    truth = by_size()
    found = size_regression(PLAIN, MEASURED, microseconds(truth, MEASURED).tolist())
    assert microseconds(dict(found.costs), UNSEEN) == pytest.approx(microseconds(truth, UNSEEN), rel=1e-6)
    assert found.left_out == pytest.approx([0.0] * len(MEASURED), abs=1e-6)


def test_a_left_out_network_is_predicted_by_the_others() -> None:
    times = (
        microseconds(by_size(), MEASURED) * np.exp(np.random.default_rng(0).normal(0, 0.2, len(MEASURED)))
    ).tolist()
    found = size_regression(PLAIN, MEASURED, times)
    others = size_regression(PLAIN, MEASURED[1:], times[1:])
    predicted = microseconds(dict(others.costs), MEASURED[:1])[0]
    assert found.left_out[0] == pytest.approx(math.log(predicted / times[0]))


@pytest.mark.parametrize("only_sizes", [True, False])
def test_the_average_is_nearly_as_good_as_the_better_one(only_sizes: bool) -> None:
    truth = by_size() if only_sizes else {k: replace(c, coefficients=tuple(2 * each for each in c.coefficients))
                                          for k, c in COSTS.items()}  # fmt: skip
    times = microseconds(truth, MEASURED).tolist()
    scaling = scale(COSTS, MEASURED, times)
    scaled, sizes = scaling.apply(COSTS), size_regression(PLAIN, MEASURED, times)
    mixed, left_out = mixture(scaled, scaling.left_out, sizes, MEASURED)
    off = {
        name: np.abs(microseconds(costs, UNSEEN) / microseconds(truth, UNSEEN) - 1).mean()
        for name, costs in (("kinds", scaled), ("sizes", dict(sizes.costs)), ("mixed", mixed))
    }
    worse, better = ("kinds", "sizes") if only_sizes else ("sizes", "kinds")
    assert off[better] < 0.5 * off[worse]
    assert off["mixed"] < off[better] + 0.02
    assert np.abs(left_out).mean() < 0.5 * np.abs(scaling.left_out if only_sizes else sizes.left_out).mean()


@pytest.mark.parametrize(("call", "most"), [(0.02, 0.06), (30.0, 0.025), (100.0, 0.025)])
def test_a_call_may_cost_anything_beside_what_kernels_cost(call: float, most: float) -> None:
    """From one thread to several that wake up first."""
    truth = by_size({"start": 3.0, "nodes": 3.0, "macs": 1.0, "values": 1.5, "weight": 2.0}, call)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.05, len(MEASURED)))
    found = scale(PLAIN, MEASURED, (microseconds(truth, MEASURED) * noise).tolist())
    assert np.abs(microseconds(found.apply(PLAIN), UNSEEN) / microseconds(truth, UNSEEN) - 1).mean() < most
