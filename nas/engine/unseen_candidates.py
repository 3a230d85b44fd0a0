"""Finds candidates that meet the limits and were not proposed before, without adding trials to the study."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hw_profiles.budget import violations
from nas.engine.infeasibility import Infeasibility
from nas.samplers.problem import Problem
from nas.samplers.space_trial import propose

_MOST_DRAWS = 500  # since the last one that came closer to the budget
_MOST_COSTS = 1000
_MUTATED = 0.5
_REDRAWN = 0.15


@dataclass(slots=True)
class Unseen:
    """Random candidates, and mutations of the one that comes closest to the budget.

    ``seen`` are the candidates of all trials with their costs.
    """

    problem: Problem
    seen: Mapping[Hashable, Mapping[str, float]]
    seed: int
    draws: int = 0
    met: Infeasibility = field(init=False)
    drawn: Infeasibility = field(init=False)
    _closest: tuple[float, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        self.met = Infeasibility(self.problem.limits)
        self.drawn = Infeasibility(self.problem.limits)
        for costs in self.seen.values():
            self.met.add(costs)

    def find(self, deadline: float) -> Mapping[str, Any] | None:
        """The parameters of such a candidate; None where 500 draws meet none, or the time is over."""
        generator = np.random.default_rng(self.seed)
        met: set[Hashable] = set()
        while self.draws < _MOST_DRAWS and len(met) < _MOST_COSTS and time.monotonic() < deadline:
            self.draws += 1
            proposal = propose(self.problem.space, self._kept(generator), generator)
            found, params = proposal.candidate, proposal.params
            if found in self.seen or found in met:
                continue
            met.add(found)
            costs = self.problem.cost(found)
            self.met.add(costs)
            self.drawn.add(costs)
            excess = sum(max(0.0, value) for value in violations(costs, self.problem.limits).values())
            if excess == 0:
                return params
            if self._closest is None or excess < self._closest[0]:
                self._closest, self.draws = (excess, params), 0
        return None

    def _kept(self, generator: np.random.Generator) -> Mapping[str, Any]:
        """Parameters that the next draw keeps: none, or most of those of the closest candidate."""
        if self._closest is None or generator.random() >= _MUTATED:
            return {}
        return {name: value for name, value in self._closest[1].items() if generator.random() >= _REDRAWN}

    def summary(self) -> dict[str, Any]:
        """How many candidates were drawn, and the costs among them that tell most."""
        return {"count": self.drawn.count, "costs": [dict(costs) for costs in self.drawn.extremes()]}

    def why_none(self) -> str:
        """Why the search is over."""
        if self.met.feasible:
            return f"the space is exhausted: {_MOST_DRAWS} draws found no new candidate within the budget"
        return f"nothing fits: {self.met.explain()}"
