"""A cached view of the trials of a study, updated only when they change."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from hw_profiles.errors import InputError
from nas.samplers.trial_attributes import COST, rejected, rung_key, started


@dataclass(slots=True)
class History:
    """The trials of a study by what became of them, and the costs of every candidate that was met.

    A finished trial is looked at once, however long the study is; :meth:`refresh` reads what is new.
    """

    study: optuna.Study
    space: Callable[[Any], Hashable]
    trials: list[FrozenTrial] = field(default_factory=list)
    costs: dict[Hashable, Mapping[str, float]] = field(default_factory=dict)
    completed: int = 0
    _first: dict[Hashable, int] = field(default_factory=dict)  # the first trial with a candidate
    _started: int = 0
    _settled: int = 0  # all trials before this place in the list are finished, and counted
    _counted: set[int] = field(default_factory=set)  # finished ones behind that place
    _known: set[int] = field(default_factory=set)  # trials whose candidate is among the costs
    _rungs: dict[str, list[FrozenTrial]] = field(default_factory=dict)

    def refresh(self) -> None:
        """Read what has changed since the last time."""
        self.trials = self.study.get_trials(deepcopy=False)
        for trial in itertools.islice(self.trials, self._settled, None):
            if trial.number not in self._known and COST in trial.user_attrs:
                self._remember(trial)
            if trial.state.is_finished() and trial.number not in self._counted:
                self._count(trial)
        while self._settled < len(self.trials) and self.trials[self._settled].number in self._counted:
            self._counted.remove(self.trials[self._settled].number)
            self._settled += 1

    @property
    def open(self) -> list[FrozenTrial]:
        """Trials that are not finished, by number."""
        behind = itertools.islice(self.trials, self._settled, None)
        return [trial for trial in behind if not trial.state.is_finished()]

    @property
    def started(self) -> int:
        """How many evaluations were started, including those that are still running."""
        return self._started + sum(map(started, self.open))

    def at_rung(self, rung: float) -> list[FrozenTrial]:
        """Trials with an accuracy at a fidelity."""
        key = rung_key(rung)
        return [*self._rungs.get(key, []), *(trial for trial in self.open if key in trial.user_attrs)]

    def rejected_in_a_row(self) -> int:
        """How many of the last trials were rejected without an evaluation; running ones are skipped."""
        finished = (trial for trial in reversed(self.trials) if trial.state.is_finished())
        return sum(1 for _ in itertools.takewhile(rejected, finished))

    def started_before(self, number: int) -> int:
        """How many evaluations were started by trials of lower numbers."""
        return sum(map(started, self.trials[:number]))

    def met_before(self, number: int, found: Hashable) -> bool:
        """Whether a trial of a lower number has this candidate."""
        return self._first.get(found, number) < number

    def meet(self, number: int, found: Hashable, costs: Mapping[str, float]) -> None:
        """Remember the candidate of a trial."""
        self._known.add(number)
        self._first[found] = min(number, self._first.get(found, number))
        self.costs.setdefault(found, costs)

    def _remember(self, trial: FrozenTrial) -> None:
        try:
            found = self.space(FixedTrial(trial.params, number=trial.number))
        except (ValueError, KeyError) as error:
            raise InputError(
                f"the study {self.study.study_name!r} holds trials of another space: trial {trial.number} ({error})"
            ) from None
        self.meet(trial.number, found, trial.user_attrs[COST])

    def _count(self, trial: FrozenTrial) -> None:
        self._counted.add(trial.number)
        self._started += started(trial)
        if trial.state == TrialState.COMPLETE and started(trial):
            self.completed += 1
        for key in trial.user_attrs:
            if key.startswith(_RUNG_PREFIX):
                self._rungs.setdefault(key, []).append(trial)


_RUNG_PREFIX = rung_key(0)[:-1]
