"""Improvements against Monte Carlo and high precision."""

from __future__ import annotations

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume
from scipy.integrate import quad
from scipy.stats import norm

from nas.samplers.acquisition import (
    Front,
    expected_hypervolume_improvement,
    expected_improvement,
    log_expected_improvement,
    log_probability_below,
)


@pytest.mark.parametrize(("mean", "deviation", "best"), [(0.3, 0.5, 0.1), (-2.0, 0.7, 0.4), (1.0, 0.1, 0.0), (0.0, 1.0, 6.5), (0.0, 1.0, 9.0)])  # fmt: skip
def test_expected_improvement_is_the_integral(mean: float, deviation: float, best: float) -> None:
    exact, _ = quad(
        lambda f: (f - best) * norm.pdf(f, mean, deviation), best, max(best, mean) + 12 * deviation, epsabs=0
    )
    found = log_expected_improvement(np.array([mean]), np.array([deviation**2]), best)[0]
    assert found == pytest.approx(np.log(exact), abs=1e-6)
    plain = expected_improvement(np.array([mean]), np.array([deviation**2]), np.array([best]))[0]
    assert plain == pytest.approx(exact, rel=1e-5, abs=1e-14)


def test_the_logarithm_goes_on_where_the_improvement_is_no_longer_a_number() -> None:
    places = np.array([-40.0, -60.0, -2e4, -3e4, -0.9999, -1.0001])
    found = log_expected_improvement(places, np.ones(6), 0.0)
    assert np.isfinite(found).all()
    assert (np.diff(found[:4]) < 0).all()
    assert found[4] - found[5] == pytest.approx(0.0002 * norm.cdf(-1) / (norm.pdf(1) - norm.cdf(-1)), rel=1e-3)


def test_the_probability_of_a_limit() -> None:
    assert np.exp(log_probability_below(np.array([1.0]), np.array([4.0]), 0.0))[0] == pytest.approx(norm.cdf(-0.5))


@pytest.mark.parametrize("number_of_costs", [1, 2])
def test_hypervolume_improvement_is_that_of_draws(number_of_costs: int) -> None:
    generator = np.random.default_rng(0)
    values, costs = generator.random(6), generator.random((6, number_of_costs))
    front = Front(values=values, costs=costs, reference_value=0.0, reference_costs=np.ones(number_of_costs))
    mean, variance, new = np.array([0.6, 1.1]), np.array([0.09, 0.04]), np.array([[0.45, 0.3], [0.1, 0.6]])[:, :number_of_costs]  # fmt: skip
    gains = np.mean(
        [
            expected_hypervolume_improvement(mean, variance, new, front, np.random.default_rng(seed))
            for seed in range(60 if number_of_costs > 1 else 1)
        ],
        axis=0,
    )
    reference = np.array([0.0, *np.ones(number_of_costs)])
    losses = np.column_stack([-values, costs])
    before = compute_hypervolume(losses, reference)
    for candidate in range(2):
        drawn = generator.normal(mean[candidate], variance[candidate] ** 0.5, size=1500)
        after = [
            compute_hypervolume(np.vstack([losses, [-max(value, 0), *new[candidate]]]), reference) for value in drawn
        ]
        assert gains[candidate] == pytest.approx(np.mean(after) - before, rel=0.08, abs=0.003)
