"""Samplers that the project's own is compared with and that are not part of the package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from nas.samplers.candidates import Candidates
from nas.samplers.full_proposal import MOST_COSTS, FullProposalSampler
from nas.samplers.observations import observations
from nas.samplers.space_trial import Proposal


class RegularizedEvolution(FullProposalSampler):
    """Mutates one choice of the best of a few of the latest candidates (1802.01548)."""

    def __init__(self, seed: int, population: int = 20, tournament: int = 5) -> None:
        super().__init__(seed, n_startup_trials=10)
        self.population, self.tournament = population, tournament

    def propose(
        self, study: Study, trials: Sequence[FrozenTrial], candidates: Candidates, generator: np.random.Generator
    ) -> Proposal | None:
        """A new mutation of a tournament's winner."""
        seen = observations(trials, study.directions)
        alive = np.arange(len(seen.rows))[-self.population :]
        drawn = generator.choice(alive, size=min(self.tournament, len(alive)), replace=False)
        parent = seen.rows[drawn[np.argmax(seen.values[drawn, 0])]]
        return _neighbor(candidates, parent, generator)


class LocalSearch(FullProposalSampler):
    """The neighbors of the best candidate in random order, then those of the second best, and so on (2005.02960)."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, n_startup_trials=10)

    def propose(
        self, study: Study, trials: Sequence[FrozenTrial], candidates: Candidates, generator: np.random.Generator
    ) -> Proposal | None:
        """A new neighbor of the best that has one."""
        seen = observations(trials, study.directions)
        for place in np.argsort(-seen.values[:, 0], kind="stable"):
            found = _neighbor(candidates, seen.rows[place], generator)
            if found is not None:
                return found
        return None


def _neighbor(candidates: Candidates, row: np.intp, generator: np.random.Generator) -> Proposal | None:
    around = candidates.unseen(candidates.encoding.neighbors(candidates.codes[row], generator))
    return next(candidates.proposals(generator.permutation(around), MOST_COSTS), None)
