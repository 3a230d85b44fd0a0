"""The candidates that a sampler may propose: new ones that meet the limits."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial

from nas.samplers.encoding import Encoding
from nas.samplers.problem import Problem
from nas.samplers.space_trial import Proposal, propose

Array = npt.NDArray[np.float64]

_PROBES = 3  # random candidates that show the choices of a space before there are trials
_MOST_REMEMBERED, _MOST_SPACES = 50_000, 4
# What the values of each space build, so that a thousand candidates are not built again for each proposal: by names and
# values, and only the hash of a candidate that may be large. It changes no result.
_built: list[tuple[Any, dict[tuple[str, ...], dict[Hashable, Hashable]]]] = []


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
        known = {tuple(trial.distributions): trial.distributions for trial in trials if trial.distributions}
        if problem is None:
            distributions = intersection_search_space(list(trials), include_pruned=True)
        else:
            for _ in range(max(_PROBES - len(trials), 0)):
                probe = propose(problem.space, {}, generator).distributions
                known.setdefault(tuple(probe), probe)
            distributions = {}
            for found in known.values():
                distributions = {**found, **distributions}
        self.conditional = problem is not None and len(known) > 1
        self.encoding = Encoding(distributions, getattr(problem and problem.space, "ordered", None), self.conditional)
        self.codes = self.encoding.encode([trial.params for trial in trials])
        self._seen = {codes.tobytes() for codes in self.codes}
        self._identities = self._known_candidates(trials)

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

        At most ``most_costs`` candidates have their costs computed.
        """
        yielded = set(self._identities)
        for row in codes:
            proposal = self.proposal(self.encoding.decode(row))
            if self._problem is None:
                yield proposal
                continue
            identity = _identity(proposal.candidate)
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
        return _identity(proposal.candidate) not in self._identities

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

    def _known_candidates(self, trials: Sequence[FrozenTrial]) -> set[Hashable]:
        """Identities of the candidates of all trials."""
        if self._problem is None:
            return set()
        remembered, found = _remembered(self._problem.space), set()
        for trial in trials:
            if not trial.params:
                continue
            of_names = remembered.setdefault(tuple(trial.params), {})
            values = tuple(trial.params.values())
            if values not in of_names:
                if len(of_names) >= _MOST_REMEMBERED:
                    of_names.clear()
                # Draws of its own: what is remembered must not move the generator of the proposals.
                built = propose(self._problem.space, trial.params, np.random.default_rng(0))
                # A worker may have stored a part of its values so far.
                of_names[values] = _identity(built.candidate) if built.params == trial.params else None
            found.add(of_names[values])
        return found - {None}


def _identity(candidate: Hashable) -> Hashable:
    return candidate if isinstance(candidate, int | float | str | tuple) else hash(candidate)


def _remembered(space: Any) -> dict[tuple[str, ...], dict[Hashable, Hashable]]:
    for known, built in _built:
        if known is space or known == space:
            return built
    _built.append((space, {}))
    del _built[:-_MOST_SPACES]
    return _built[-1][1]
