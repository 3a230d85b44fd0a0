"""The description of a search that a sampler receives: the space, the costs and their limits."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """The space, costs and limits of a search.

    ``space(trial)`` gives a candidate, ``cost(candidate)`` its costs, worked out once for each candidate. ``limits``
    holds the largest allowed value of each limited cost. ``objectives`` are "accuracy" (maximized) and names of costs
    (minimized), in the order of the study's directions.
    """

    space: Callable[[Any], Hashable]
    cost: Callable[[Any], Mapping[str, float]]
    limits: Mapping[str, float]
    objectives: tuple[str, ...]


@runtime_checkable
class UsesProblem(Protocol):
    """A sampler that proposes better candidates when it knows the space and the costs."""

    def with_problem(self, problem: Problem) -> Self:
        """The same sampler, knowing ``problem``."""
