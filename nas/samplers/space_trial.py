"""A stand-in for an Optuna trial that builds a candidate of given values outside of any study."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A candidate with the values that build it and where they come from."""

    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    candidate: Hashable


@dataclass(slots=True)
class SpaceTrial:
    """Suggests the given values where they are valid, and random ones for other names.

    It has the part of Optuna's trial that a space needs, so that spaces whose later choices depend on earlier ones
    can be asked without a study.
    """

    given: Mapping[str, Any]
    generator: np.random.Generator
    number: int = 0
    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""
        return self._suggest(name, CategoricalDistribution(tuple(choices)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in low..high."""
        return int(self._suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in low..high."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def set_user_attr(self, key: str, value: Any) -> None:
        """Nothing: there is no trial that would keep it."""

    def report(self, value: float, step: int) -> None:
        """Nothing: there is no trial that would keep it."""

    def should_prune(self) -> bool:
        """No."""
        return False

    @property
    def user_attrs(self) -> dict[str, Any]:
        """None."""
        return {}

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self.params:
            usable = name in self.given and holds(distribution, self.given[name])
            self.params[name] = self.given[name] if usable else random_value(distribution, self.generator)
            self.distributions[name] = distribution
        return self.params[name]


def propose(
    space: Callable[[Any], Hashable], given: Mapping[str, Any], generator: np.random.Generator, number: int = 0
) -> Proposal:
    """The candidate that ``space`` builds of the given values; what it asks for beside them is random.

    >>> proposal = propose(lambda trial: trial.suggest_int("width", 8, 64), {"width": 32}, np.random.default_rng(0))
    >>> proposal.candidate
    32
    """
    trial = SpaceTrial(given, generator, number)
    candidate = space(trial)
    return Proposal(params=trial.params, distributions=trial.distributions, candidate=candidate)


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value is one of the distribution's."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


def random_value(distribution: BaseDistribution, generator: np.random.Generator) -> Any:
    """A value of the distribution, uniformly (of the logarithm where the distribution says so)."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(generator.integers(len(distribution.choices)))]
    return value_at(distribution, float(generator.random()))


def value_at(distribution: BaseDistribution, position: float) -> int | float:
    """The number at a position in 0..1 of the range of an int or float distribution.

    >>> value_at(IntDistribution(0, 10), 0.5)
    5
    """
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = float(distribution.low), float(distribution.high), distribution.step
    if isinstance(distribution, IntDistribution) or step is not None:
        # Every value of the grid gets the same share of 0..1.
        assert step is not None
        half = step / 2
        value = _between(
            max(low - half, low / 2) if distribution.log else low - half, high + half, position, distribution
        )
        value = low + round((value - low) / step) * step
    else:
        value = _between(low, high, position, distribution)
    value = min(max(value, low), high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def position_of(distribution: BaseDistribution, value: float) -> float:
    """Where a number lies in the range of its distribution, 0..1; the inverse of :func:`value_at` up to rounding."""
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if high <= low:
        return 0.5
    if distribution.log:
        low, high, value = np.log(low), np.log(high), np.log(value)
    return float(min(max((value - low) / (high - low), 0.0), 1.0))


def _between(low: float, high: float, position: float, distribution: IntDistribution | FloatDistribution) -> float:
    if distribution.log:
        return float(np.exp(np.log(low) + position * (np.log(high) - np.log(low))))
    return low + position * (high - low)
