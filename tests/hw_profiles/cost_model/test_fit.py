"""Costs that are fitted to times of whole networks, held against costs that are known."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from hw_profiles.cost_model.features import QUANTITIES, CostFeatures
from hw_profiles.cost_model.fit import Observation, cross_validated_errors, fit
from hw_profiles.cost_model.kernel_costs import KernelCost
from tests.hw_profiles.synthetic import micro_features, microseconds, true_costs
from tests.parameters import slow

MEASURED, LEFT_OUT = 600, 100


@cache
def networks(precision: str) -> list[tuple[CostFeatures, ...]]:
    return micro_features(precision, range(MEASURED + LEFT_OUT))


def observed(precision: str, count: int = MEASURED) -> tuple[list[Observation], np.ndarray]:
    """Times with 1 % of noise; every twentieth network takes twice as long. And which these are."""
    all_features = networks(precision)
    draw = np.random.default_rng(1)
    times = microseconds(true_costs(all_features), all_features)[:count] * np.exp(draw.normal(0, 0.01, size=count))
    slow = draw.random(count) < 0.05
    times[slow] *= 2
    return [Observation(t, float(us)) for t, us in zip(all_features, times, strict=False)], slow


def errors(costs: dict[str, KernelCost], precision: str) -> np.ndarray:
    """Of the networks that were not measured, how far the prediction is off what they cost."""
    all_features = networks(precision)
    left_out = all_features[MEASURED:]
    truth = microseconds(true_costs(all_features), left_out)
    return np.abs(microseconds(costs, left_out) / truth - 1)


@cache
def fitted(precision: str) -> dict[str, KernelCost]:
    return fit(observed(precision)[0])


@pytest.mark.slow
@pytest.mark.parametrize("precision", [slow("fp32"), "int8"])
def test_networks_that_were_not_measured_are_predicted(precision: str) -> None:
    observations, _ = observed(precision)
    costs = fitted(precision)
    found = errors(costs, precision)
    assert np.median(found) < 0.015
    assert np.mean(found < 0.03) > 0.85
    assert all(linear_cost >= 0 for cost in costs.values() for linear_cost in cost.coefficients)
    assert set(costs) == {features.kind for o in observations for features in o.all_features}


@pytest.mark.slow
def test_corrections_tell_more_than_coefficients() -> None:
    costs = fitted("int8")
    known = {kind: KernelCost(coefficients=cost.coefficients) for kind, cost in costs.items()}
    assert np.median(errors(costs, "int8")) < 0.5 * np.median(errors(known, "int8"))


@pytest.mark.slow
def test_errors_of_networks_left_out_show_which_times_do_not_fit() -> None:
    observations, slow = observed("int8", 240)
    found = cross_validated_errors(observations)
    assert np.median(np.abs(found[~slow])) < 0.03
    assert (found[slow] < -0.4).all()
    assert np.mean(np.abs(found[~slow]) < 0.2) > 0.97


@pytest.mark.slow
def test_each_error_is_that_of_a_network_that_was_left_out() -> None:
    """A time that is off by a hundred is not explained by itself."""
    observations, _ = observed("int8", 100)
    observations[7] = Observation(observations[7].all_features, 100 * observations[7].microseconds)
    assert cross_validated_errors(observations)[7] < -np.log(50)


def test_coefficients_alone_are_found_exactly() -> None:
    draw = np.random.default_rng(0)
    rows = [CostFeatures("call/call", (), tuple(draw.uniform(1, 9, size=5))) for _ in range(40)]
    coefficients = np.array([3.0, 0.5, 0.0, 0.2, 1.0])
    costs = fit([Observation((row,), float(coefficients @ row.quantities)) for row in rows])
    np.testing.assert_allclose(costs["call/call"].coefficients, coefficients, atol=5e-3)


def test_what_has_no_cost_is_not_given_a_negative_one() -> None:
    """Where more of one thing goes with less time, it is free; least squares alone would pay for it."""
    draw = np.random.default_rng(0)
    true = np.array([10, -2, 1, 0, 0])
    works = draw.uniform(1, 2, size=(60, 5))
    observations = [Observation((CostFeatures("call/call", (), tuple(w)),), float(w @ true)) for w in works]
    assert np.linalg.lstsq(works, works @ true, rcond=None)[0][1] < 0
    assert fit(observations)["call/call"].coefficients[1] == pytest.approx(0, abs=1e-6)


def test_no_kernel_starts_for_nothing() -> None:
    """Even where the times of all networks are told by something else alone."""
    draw = np.random.default_rng(0)
    works = [(1.0, *draw.uniform(0, 9, size=len(QUANTITIES["conv"]) - 1)) for _ in range(40)]
    observations = [
        Observation((CostFeatures("conv/conv.plain", (0.0,) * 7, quantities),), 3 * quantities[1])
        for quantities in works
    ]
    assert fit(observations)["conv/conv.plain"].coefficients[0] >= 0.02


def test_nothing_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="at least one network must be measured"):
        fit([])
