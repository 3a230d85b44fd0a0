"""Random candidates of a space without a study."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nas.samplers.drawing import Drawing, draw, draw_value


@pytest.mark.parametrize(
    "distribution",
    [
        CategoricalDistribution(("a", 1, None, True)),
        IntDistribution(3, 11, step=2),
        IntDistribution(1, 100, log=True),
        FloatDistribution(0.0, 1.0),
        FloatDistribution(0.0, 1.0, step=0.1),
        FloatDistribution(1e-4, 1.0, log=True),
    ],
)
def test_values_are_those_of_the_distribution(distribution: Any) -> None:
    generator = random.Random(0)
    values = [draw_value(distribution, generator) for _ in range(500)]
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in values)
    optuna.trial.create_trial(value=0.0, params={"x": values[0]}, distributions={"x": distribution})
    if isinstance(distribution, CategoricalDistribution):
        assert set(values) == set(distribution.choices)
    elif isinstance(distribution, IntDistribution) and not distribution.log:
        assert set(values) == set(range(3, 12, 2))
    elif distribution.log:
        assert sum(value <= distribution.high**0.5 * distribution.low**0.5 for value in values) == pytest.approx(
            250, abs=60
        )


def test_kept_values_are_kept_where_they_are_valid() -> None:
    def space(trial: Any) -> tuple[Any, ...]:
        kind = trial.suggest_categorical("kind", ("conv", "pool"))
        width = trial.suggest_int("width", 8, 32, step=8) if kind == "conv" else 0
        return kind, width, trial.suggest_float("rate", 0, 1)

    kept = {"kind": "conv", "width": 12, "rate": 0.5, "other": 1}  # 12 is no multiple of 8
    drawn = [draw(space, random.Random(seed), kept) for seed in range(60)]
    assert {found[0] for found, _ in drawn} == {"conv"}
    assert set(Counter(found[1] for found, _ in drawn)) == {8, 16, 24, 32}
    assert all(params == {"kind": "conv", "width": found[1], "rate": 0.5} for found, params in drawn)


def test_a_name_that_is_asked_for_twice_has_one_value() -> None:
    drawing = Drawing(random.Random(0))
    assert drawing.suggest_int("x", 0, 10**6) == drawing.suggest_int("x", 0, 10**6)
