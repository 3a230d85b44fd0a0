"""Which worker evaluates which trial: one search alone, or several that share a study."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from nas.samplers.trial_attributes import started
from nas.storages.lease import WORKER, Lease, LeaseWatch, new_worker, take_over

_NOBODY = "nobody"


class Ownership(Protocol):
    """Who evaluates which trial."""

    worker: str
    shared: bool

    def hold(self, trial_id: int) -> None:
        """Begin to evaluate a trial."""

    def release(self, trial_id: int) -> None:
        """It is evaluated."""

    def holds(self, trial_id: int) -> bool:
        """Whether a result may still be reported."""

    def left(self, open_trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Trials that nobody evaluates any more."""

    def take_over(self, trial: FrozenTrial) -> bool:
        """Make a trial that was left one's own; False where another was faster."""

    def close(self) -> None:
        """Stop."""


class Alone:
    """Nobody else works on the study: what runs and is not held here was left by a process that died."""

    shared = False

    def __init__(self) -> None:
        self.worker = new_worker()
        self._held: set[int] = set()

    def hold(self, trial_id: int) -> None:
        """Begin to evaluate a trial."""
        self._held.add(trial_id)

    def release(self, trial_id: int) -> None:
        """It is evaluated."""
        self._held.discard(trial_id)

    def holds(self, trial_id: int) -> bool:
        """Always."""
        return True

    def left(self, open_trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """What runs and is not held."""
        return [t for t in open_trials if t.state == TrialState.RUNNING and t._trial_id not in self._held]

    def take_over(self, trial: FrozenTrial) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Nothing runs."""


class Shared:
    """Several processes work on the study, also on other machines: each gives signs of life for its trials."""

    shared = True

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._watch = LeaseWatch()
        self._lease = Lease(study._storage, on_beat=lambda: self._watch.lapsed(study.get_trials(deepcopy=False)))
        self.worker = self._lease.worker
        self._held: set[int] = set()

    def hold(self, trial_id: int) -> None:
        """Begin to evaluate a trial."""
        self._held.add(trial_id)
        self._lease.hold(trial_id)

    def release(self, trial_id: int) -> None:
        """It is evaluated."""
        self._held.discard(trial_id)
        self._lease.release(trial_id)

    def holds(self, trial_id: int) -> bool:
        """Whether no other worker has taken it over, as from a process that was stopped for long."""
        return self._lease.still_held(trial_id)

    def left(self, open_trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Trials of searches whose worker is gone or silent; those that other programs asked for are theirs."""
        lapsed = {trial._trial_id for trial in self._watch.lapsed(open_trials)}
        return [
            trial
            for trial in open_trials
            if (trial._trial_id in lapsed or trial.user_attrs.get(WORKER) == _NOBODY)
            and started(trial)
            and trial._trial_id not in self._held
        ]

    def take_over(self, trial: FrozenTrial) -> bool:
        """Whether this worker was the last to write its name into it."""
        return take_over(self._study._storage, trial, self.worker)

    def close(self) -> None:
        """Give no more signs of life, and leave what is not evaluated, as after Ctrl-C, to whoever comes."""
        self._lease.close()
        for trial_id in self._held:
            with suppress(UpdateFinishedTrialError):
                self._study._storage.set_trial_user_attr(trial_id, WORKER, _NOBODY)
