"""Draws candidates of a space at random, without a study."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)


class Drawing:
    """What a space asks for values in place of a trial: those of ``kept`` where they are valid, others at random.

    ``params`` and ``distributions`` tell what was asked for.
    """

    number = 0

    def __init__(self, generator: random.Random, kept: Mapping[str, Any] | None = None) -> None:
        self._generator = generator
        self._kept = kept or {}
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[CategoricalChoiceType]) -> Any:
        """One of the choices."""
        return self._suggest(name, CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in ``low..high``."""
        return int(self._suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in ``low..high``."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self.params:
            kept = self._kept.get(name)
            valid = name in self._kept and _contains(distribution, kept)
            self.params[name] = kept if valid else draw_value(distribution, self._generator)
            self.distributions[name] = distribution
        return self.params[name]


def draw(
    space: Callable[[Any], Hashable], generator: random.Random, kept: Mapping[str, Any] | None = None
) -> tuple[Hashable, dict[str, Any]]:
    """A random candidate that keeps some parameters, and all its parameters.

    >>> draw(lambda trial: trial.suggest_int("x", 0, 9), random.Random(0), {"x": 3})
    (3, {'x': 3})
    """
    drawing = Drawing(generator, kept)
    return space(drawing), drawing.params


def draw_value(distribution: BaseDistribution, generator: random.Random) -> Any:
    """A value of a distribution, uniformly (of its logarithm where it says so)."""
    if isinstance(distribution, CategoricalDistribution):
        return generator.choice(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        value = math.exp(generator.uniform(math.log(low), math.log(high)))
        return max(low, min(high, round(value))) if isinstance(distribution, IntDistribution) else min(high, value)
    if step is None:
        return generator.uniform(low, high)
    return low + step * generator.randrange(int((high - low) / step + 1e-9) + 1)


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:
        return False
