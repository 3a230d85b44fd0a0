"""What a sampler may propose: the codes of candidates, which of them were there before, and which keep the limits."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial

from nas.samplers.encoding import Encoding
from nas.samplers.problem import Problem
from nas.samplers.space_trial import Proposal, propose

Array = npt.NDArray[np.float64]

_PROBES = 3  # random candidates that show the choices of a space before there are trials
_MOST_REMEMBERED = 50_000
# The hash of the candidate of each values, so that no space builds a thousand candidates again for each proposal.
_hashes: weakref.WeakKeyDictionary[Any, dict[Hashable, int]] = weakref.WeakKeyDictionary()


class Candidates:
    """Proposals of a search of which ``trials`` are known; without a ``problem`` the space is what they have in common.

    ``encoding`` is of all choices that are known.
    """

    def __init__(
        self,
        problem: Problem | None,
        trials: Sequence[FrozenTrial],
        generator: np.random.Generator,
    ) -> None:
        self._problem, self._generator = problem, generator
        names = {frozenset(trial.distributions) for trial in trials if trial.distributions}
        distributions: dict[str, BaseDistribution] = {}
        if problem is None:
            distributions = intersection_search_space(list(trials), include_pruned=True)
        else:
            probes = [propose(problem.space, {}, generator) for _ in range(_PROBES)]
            names |= {frozenset(probe.distributions) for probe in probes}
            for known in (*(probe.distributions for probe in probes), *(trial.distributions for trial in trials)):
                distributions = {**known, **distributions}
        self.conditional = problem is not None and len(names) > 1
        self.encoding = Encoding(distributions, getattr(problem and problem.space, "ordered", None), self.conditional)
        self.codes = self.encoding.encode([trial.params for trial in trials])
        self._seen = {codes.tobytes() for codes in self.codes}
        self._identities = {self._hash(trial.params) for trial in trials} if problem else set()

    def unseen(self, codes: Array) -> Array:
        """Rows of codes, each once, without those of the trials."""
        kept: dict[bytes, int] = {}
        for row, code in enumerate(codes):
            key = code.tobytes()
            if key not in self._seen:
                kept.setdefault(key, row)
        result: Array = codes[list(kept.values())]
        return result

    def resolve(self, codes: Array) -> Array:
        """What the space makes of codes: a choice that depends on others is absent where it is not asked for."""
        if not self.conditional or self._problem is None:
            return codes
        space, decode = self._problem.space, self.encoding.decode
        return self.encoding.encode([propose(space, decode(row), self._generator).params for row in codes])

    def proposals(self, codes: Array, most_costs: int) -> Iterator[Proposal]:
        """The proposals of rows of codes that are new and keep the limits, in that order.

        At most ``most_costs`` candidates are asked for their costs.
        """
        yielded = set(self._identities)
        for row in codes:
            proposal = self.proposal(self.encoding.decode(row))
            if self._problem is None:
                yield proposal
                continue
            identity = hash(proposal.candidate)
            if identity in yielded:
                continue
            yielded.add(identity)
            if most_costs <= 0:
                return
            most_costs -= 1
            if self.keeps_limits(proposal):
                yield proposal

    def proposal(self, params: Mapping[str, Any]) -> Proposal:
        """What the space makes of values."""
        if self._problem is None:
            known = {found.name: found.distribution for found in self.encoding.dimensions}
            return Proposal(params=dict(params), distributions=known, candidate=None)
        return propose(self._problem.space, params, self._generator)

    def is_new(self, proposal: Proposal) -> bool:
        """Whether no trial had this candidate."""
        return hash(proposal.candidate) not in self._identities

    def costs(self, proposal: Proposal) -> Mapping[str, float]:
        """The costs of a candidate of a problem."""
        assert self._problem is not None
        return self._problem.cost(proposal.candidate)

    def keeps_limits(self, proposal: Proposal) -> bool:
        """Whether a candidate keeps all limits of the problem."""
        if self._problem is None or not self._problem.limits:
            return True
        costs = self.costs(proposal)
        return all(costs[name] <= limit for name, limit in self._problem.limits.items())

    def _hash(self, params: Mapping[str, Any]) -> int:
        assert self._problem is not None
        space = self._problem.space
        try:
            known = _hashes.setdefault(space, {})
        except TypeError:  # no weak reference to it
            known = {}
        if len(known) > _MOST_REMEMBERED:
            known.clear()
        key = tuple((name, type(value), value) for name, value in params.items())
        if key not in known:
            known[key] = hash(propose(space, params, self._generator).candidate)
        return known[key]
