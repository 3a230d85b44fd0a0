"""The base of samplers that propose all values of a candidate at once."""

from __future__ import annotations

import abc
import copy
import functools
import zlib
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import ThreadpoolController

from nas.samplers.candidates import Candidates
from nas.samplers.observations import is_feasible
from nas.samplers.problem import Problem
from nas.samplers.space_trial import Proposal, random_value

_RANDOM_INFEASIBLE = 10
_MOST_DRAWS = 50
MOST_COSTS = 30


class FullProposalSampler(BaseSampler):
    """Hands the candidates of :meth:`propose` to Optuna, after ``n_startup_trials`` random ones.

    The first draws are not held to the limits until ten broke them: those show what share of the space fits. A
    proposal depends on the seed, the trial's number and the other trials only.
    """

    def __init__(self, seed: int, n_startup_trials: int) -> None:
        self._seed, self._n_startup_trials = seed, n_startup_trials
        self._problem: Problem | None = None
        self._proposed: dict[int, dict[str, Any]] = {}

    def with_problem(self, problem: Problem) -> Self:
        """The same sampler, knowing space, costs and limits."""
        sampler = copy.copy(self)
        sampler._problem, sampler._proposed = problem, {}
        return sampler

    @abc.abstractmethod
    def propose(
        self, study: Study, trials: Sequence[FrozenTrial], candidates: Candidates, generator: np.random.Generator
    ) -> Proposal | None:
        """The next candidate, or None for one of random values."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The distributions of the proposal for this trial, which is made here."""
        generator = np.random.default_rng([self._seed, trial.number])
        trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        known = sum(other.state in (TrialState.COMPLETE, TrialState.RUNNING) for other in trials)
        candidates = Candidates(self._problem, trials, generator)
        if known < self._n_startup_trials:
            proposal = self._random(trials, candidates)
        else:
            with _blas().limit(limits=1):
                proposal = self.propose(study, trials, candidates, generator)
            proposal = proposal or self._random(trials, candidates)
        if proposal is None:
            return {}
        self._proposed[trial.number] = proposal.params
        return proposal.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of the proposal for this trial."""
        return self._proposed.pop(trial.number, {})

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value."""
        generator = np.random.default_rng([self._seed, trial.number, zlib.crc32(param_name.encode())])
        return random_value(param_distribution, generator)

    def _random(self, trials: Sequence[FrozenTrial], candidates: Candidates) -> Proposal | None:
        """A random candidate, where possible a new one and, after ten that broke the limits, one that keeps them."""
        if self._problem is None:
            return None
        limited = sum(not is_feasible(trial) for trial in trials) >= _RANDOM_INFEASIBLE
        fallback, asked = None, 0
        for _ in range(_MOST_DRAWS):
            proposal = candidates.proposal({})
            if not candidates.is_new(proposal):
                continue
            if not limited or (asked < MOST_COSTS and candidates.keeps_limits(proposal)):
                return proposal
            asked += 1
            fallback = fallback or proposal
        return fallback


@functools.cache
def _blas() -> ThreadpoolController:
    """The libraries of linear algebra: on the small matrices here their threads wait for each other, and for the
    trainings beside them, many times as long as one thread computes."""
    return ThreadpoolController()
