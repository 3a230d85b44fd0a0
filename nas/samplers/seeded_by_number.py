"""A new sampler for each trial, seeded by the trial's number."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class SeededByNumber(BaseSampler):
    """Asks ``make(number)`` for a sampler for each trial.

    A sampler's random state lives in its process. With a new one for each trial, seeded by the trial's number, a
    search that was interrupted continues with the values that it would have had.
    """

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        self._make = make
        self._current: tuple[int, BaseSampler] | None = None

    def _sampler(self, trial: FrozenTrial) -> BaseSampler:
        if self._current is None or self._current[0] != trial.number:
            self._current = (trial.number, self._make(trial.number))
        return self._current[1]

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Told to the sampler of the trial."""
        self._sampler(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What the sampler of the trial proposes together."""
        return self._sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of those."""
        return self._sampler(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One value that is not among those."""
        return self._sampler(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Told to the sampler of the trial."""
        self._sampler(trial).after_trial(study, trial, state, values)


def seed_for(seed: int, number: int) -> int:
    """The seed of one trial of a search.

    >>> seed_for(0, 1) == seed_for(0, 1), seed_for(0, 1) == seed_for(0, 2)
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(f"{seed},{number}".encode()).digest()[:4])
