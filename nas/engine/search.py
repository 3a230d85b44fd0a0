"""The search: one Optuna study, cheap constraints before costly evaluations, no candidate evaluated twice."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import socket
import time
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState
from sqlalchemy.exc import DatabaseError

from compress.argument_checks import LARGEST_SEED, is_number, is_whole
from hw_profiles.budget import Budget, violations
from hw_profiles.errors import InputError
from nas.engine.successive_halving import check_rungs, promising
from nas.samplers.registry import random, tpe
from nas.storages.sqlite_file import create_database, sqlite_url

Space = Callable[[Any], Hashable]
Evaluate = Callable[[Any, float], float]
Cost = Callable[[Any], Mapping[str, float]]
Sampler = optuna.samplers.BaseSampler | Callable[[int], optuna.samplers.BaseSampler]

ACCURACY = "accuracy"
# Attributes of a trial.
WHY, CAUSE, COST, WORKER, STARTED = "why", "cause", "cost", "worker", "evaluation_started"

_MOST_REJECTED = (
    500  # proposals in a row that were not worth an evaluation: the space is exhausted or the budget too small
)
_REPEATS_BEFORE_RANDOM = 10
_REPEATS = "repeats an earlier candidate"

_spaces: weakref.WeakKeyDictionary[optuna.Study, Space] = weakref.WeakKeyDictionary()


def search(
    space: Space,
    evaluate: Evaluate,
    *,
    cost: Cost,
    budget: Budget | Mapping[str, float] | None = None,
    objectives: Sequence[str] = (ACCURACY,),
    n_trials: int | None = 50,
    timeout: float | None = None,
    seed: int = 0,
    rungs: Sequence[float] = (1.0,),
    sampler: Sampler | None = None,
    storage: str | Path | optuna.storages.BaseStorage | None = None,
    study_name: str | None = None,
    on_trial: Callable[[optuna.Study], None] | None = None,
    alone: bool = False,
) -> optuna.Study:
    """Search ``space`` for candidates of high accuracy within ``budget``.

    ``space(trial)`` gives a hashable candidate, ``cost(candidate)`` its costs (lower is better),
    ``evaluate(candidate, fidelity)`` its accuracy in 0..1 at a fidelity in (0, 1]. A candidate that breaks the
    budget, or equals an earlier one, is never evaluated: its trial is PRUNED with the attribute ``why``. Others are
    COMPLETE with the objectives' values, PRUNED when an early rung shows no promise, or FAIL with the attribute
    ``cause``. Costs stand in the attribute ``cost``.

    ``n_trials`` counts candidates whose evaluation started, earlier runs on the same storage included; ``timeout`` is
    in seconds. The search also ends after 500 proposals in a row that were not worth an evaluation. ``rungs`` are the
    fidelities at which a candidate is judged, the last is 1 (asynchronous successive halving, 1810.05934).
    ``sampler`` is one of Optuna's, or a function that makes one from a seed; by default TPE, seeded anew for each
    trial from (seed, number), so that a search that was interrupted goes on as if it had not been.
    A sampler that is handed over as an object has a state of its own, so then that is not promised.
    ``on_trial(study)`` is called after each proposal. A trial that a killed process left is taken up again: one of this
    host whose process is gone, or with ``alone``, where no other process works on the study, any that is not finished.

    Raises:
        InputError: an argument that cannot be, or a limit or objective that ``cost`` does not tell.

    >>> study = search(lambda trial: trial.suggest_int("x", 0, 9), lambda x, fidelity: x / 9,
    ...                cost=lambda x: {"size": x}, budget={"size": 6}, n_trials=7)
    >>> winner(study)
    6
    """
    _check(objectives, n_trials, timeout, seed)
    limits = budget.limits() if isinstance(budget, Budget) else _limits(budget or {})
    if isinstance(storage, Path):
        create_database(storage)
    try:
        study = optuna.create_study(
            storage=sqlite_url(storage) if isinstance(storage, Path) else storage,
            study_name=study_name,
            directions=["maximize" if name == ACCURACY else "minimize" for name in objectives],
            load_if_exists=True,
        )
    except DatabaseError as error:
        if "is not a database" not in str(error) and "malformed" not in str(error):
            raise
        raise InputError(f"{storage}: not the database of a study ({error.orig})") from None
    study.set_user_attr("objectives", list(objectives))
    _spaces[study] = space
    job = _Job(study, space, evaluate, cost, limits, tuple(objectives), check_rungs(rungs), seed, sampler, alone)
    job.run(n_trials, timeout, on_trial)
    return study


def candidate(study: optuna.Study, trial: FrozenTrial) -> Any:
    """The candidate of a trial of a study that :func:`search` returned.

    Raises:
        InputError: the study did not come from ``search`` in this process.
    """
    if study not in _spaces:
        raise InputError("candidate: the study must be one that nas.search returned in this process")
    return _spaces[study](FixedTrial(trial.params, number=trial.number))


def winner(study: optuna.Study) -> Any | None:
    """The candidate of the highest accuracy among those evaluated to the end, which all keep the budget; None without
    one."""
    best = winning_trial(study)
    return None if best is None else candidate(study, best)


def winning_trial(study: optuna.Study) -> FrozenTrial | None:
    """The trial of :func:`winner`; the earlier one where two are equal."""
    ranked = ranked_trials(study)
    return ranked[0] if ranked else None


def ranked_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All evaluated trials, the most accurate first."""
    place = study.user_attrs["objectives"].index(ACCURACY)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (-trial.values[place], trial.number))


@dataclass(slots=True)
class _Job:
    study: optuna.Study
    space: Space
    evaluate: Evaluate
    cost: Cost
    limits: Mapping[str, float]
    objectives: tuple[str, ...]
    rungs: tuple[float, ...]
    seed: int
    sampler: Sampler | None
    alone: bool
    costs: dict[Any, Mapping[str, float]] = field(default_factory=dict)

    def run(self, n_trials: int | None, timeout: float | None, on_trial: Callable[[optuna.Study], None] | None) -> None:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        wanted = math.inf if n_trials is None else n_trials
        pending = self._remember()
        while time.monotonic() < deadline:
            earlier = self._before(pending[0].number) if pending else self.study.get_trials(deepcopy=False)
            if not pending and (self._started() >= wanted or _last(earlier, _rejected) >= _MOST_REJECTED):
                break
            self.study.sampler = self._sampler(earlier)
            trial = self._adopt(pending.pop(0), earlier) if pending else self.study.ask()
            trial.set_user_attr(WORKER, _this_worker())
            self._try(trial)
            if on_trial is not None:
                on_trial(self.study)

    def _remember(self) -> list[FrozenTrial]:
        """Costs of what was seen; the trials that a process left unfinished when it died."""
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials:
            if COST in trial.user_attrs and trial.state != TrialState.RUNNING:
                self.costs[self.space(FixedTrial(trial.params, number=trial.number))] = trial.user_attrs[COST]
        return [trial for trial in trials if trial.state == TrialState.RUNNING and (self.alone or _orphaned(trial))]

    def _started(self) -> int:
        return sum(STARTED in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))

    def _before(self, number: int) -> list[FrozenTrial]:
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.number < number]

    def _adopt(self, left: FrozenTrial, earlier: Sequence[FrozenTrial]) -> Trial:
        """A trial that a killed process left, with the values that it would have got.

        Of its values only the first may have been stored, and drawing the rest alone would draw others: so all are
        drawn once more in a copy of the study as it was.
        """
        if not isinstance(self.sampler, optuna.samplers.BaseSampler):  # an object's state went with the process
            copy = optuna.create_study(directions=self.study.directions, sampler=self.study.sampler)
            copy.add_trials(earlier)
            again = copy.ask()
            self.space(again)
            self.study.sampler = optuna.samplers.PartialFixedSampler({**again.params, **left.params}, random(0))
        return Trial(self.study, left._trial_id)

    def _sampler(self, earlier: Sequence[FrozenTrial]) -> optuna.samplers.BaseSampler:
        seed = _mix(self.seed, len(earlier))
        if _last(earlier, repeated) >= _REPEATS_BEFORE_RANDOM:
            return random(seed)
        if isinstance(self.sampler, optuna.samplers.BaseSampler):
            return self.sampler
        return (self.sampler or tpe)(seed)

    def _try(self, trial: Trial) -> None:
        found = self.space(trial)
        repeated = found in self.costs
        costs = self.costs[found] if repeated else self._costs(found)
        excess = violations(costs, self.limits)
        trial.set_user_attr(COST, costs)
        for name, value in excess.items():
            trial.set_constraint(name, value)
        trial.set_user_attr("feasible", all(value <= 0 for value in excess.values()))
        self.costs[found] = costs
        over = [f"{name} is {costs[name]:g}, the limit {self.limits[name]:g}" for name, v in excess.items() if v > 0]
        why = "breaks the budget: " + "; ".join(over) if over else _REPEATS if repeated else None
        if why is None:
            self._evaluate(trial, found, costs)
        else:
            self._prune(trial, why)

    def _evaluate(self, trial: Trial, found: Any, costs: Mapping[str, float]) -> None:
        trial.set_user_attr(STARTED, True)
        accuracy = math.nan
        for rung in self.rungs:
            try:
                accuracy = _accuracy(self.evaluate(found, rung))
            except Exception as error:
                trial.set_user_attr(CAUSE, f"{type(error).__name__}: {error}")
                self.study.tell(trial, state=TrialState.FAIL)
                return
            trial.set_user_attr(_rung_key(rung), accuracy)
            if rung < 1 and not promising(accuracy, self._accuracies_at(rung)):
                self._prune(trial, f"not among the best third at fidelity {rung:g}: accuracy {accuracy:.4f}")
                return
        values = [accuracy if name == ACCURACY else costs[name] for name in self.objectives]
        self.study.tell(trial, values)

    def _prune(self, trial: Trial, why: str) -> None:
        trial.set_user_attr(WHY, why)
        self.study.tell(trial, state=TrialState.PRUNED)

    def _accuracies_at(self, rung: float) -> list[float]:
        key = _rung_key(rung)
        trials = self.study.get_trials(deepcopy=False)
        return [trial.user_attrs[key] for trial in trials if key in trial.user_attrs]

    def _costs(self, found: Any) -> Mapping[str, float]:
        costs = {}
        for name, value in self.cost(found).items():
            number = _plain(value)
            if number is None or math.isnan(number):
                raise InputError(f"cost {name!r} must be a number, got {value!r}")
            costs[name] = number
        for name in (*self.limits, *(o for o in self.objectives if o != ACCURACY)):
            if name not in costs:
                raise InputError(
                    f"cost must tell {name!r}, which is limited or an objective; it tells {', '.join(costs)}"
                )
        return costs


def _limits(budget: Mapping[str, float]) -> dict[str, float]:
    limits = {}
    for name, limit in budget.items():
        number = _plain(limit)
        if number is None or not 0 < number < math.inf:
            raise InputError(f"budget {name!r} must be a number above 0, got {limit!r}")
        limits[name] = number
    return limits


def _check(objectives: Sequence[str], n_trials: int | None, timeout: float | None, seed: int) -> None:
    if ACCURACY not in objectives or len(set(objectives)) != len(objectives):
        raise InputError(f"objectives must hold 'accuracy' and differ, got {tuple(objectives)}")
    if n_trials is None and timeout is None:
        raise InputError("n_trials or timeout must be given, got neither")
    if n_trials is not None and not is_whole(n_trials, 1):
        raise InputError(f"n_trials must be a whole number of at least 1 or None, got {n_trials!r}")
    if timeout is not None and not is_number(timeout, 0):
        raise InputError(f"timeout must be a number of seconds above 0 or None, got {timeout!r}")
    if not is_whole(seed, 0, LARGEST_SEED):
        raise InputError(f"seed must be a whole number in 0..{LARGEST_SEED}, got {seed!r}")


def _accuracy(value: Any) -> float:
    accuracy = _plain(value)
    if accuracy is None or not 0 <= accuracy <= 1:
        raise InputError(f"evaluate must return an accuracy in 0..1, got {value!r}")
    return float(accuracy)


def _plain(value: Any) -> float | None:
    """A number of Python, numpy or torch as one of Python, the only ones that storages take; None for anything else."""
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    if not isinstance(number, Real) or isinstance(number, bool):
        return None
    return int(number) if isinstance(number, Integral) else float(number)


def _rejected(trial: FrozenTrial) -> bool:
    """Whether a trial was not worth an evaluation."""
    return WHY in trial.user_attrs and STARTED not in trial.user_attrs


def repeated(trial: FrozenTrial) -> bool:
    """Whether a trial proposed a candidate that had been there before."""
    return str(trial.user_attrs.get(WHY, "")).startswith(_REPEATS)


def _last(trials: Sequence[FrozenTrial], holds: Callable[[FrozenTrial], bool]) -> int:
    """How many trials in a row, counted from the end, something holds for."""
    return sum(1 for _ in itertools.takewhile(holds, reversed(trials)))


def _rung_key(rung: float) -> str:
    return f"accuracy_at_{rung:g}"


def _mix(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed},{number}".encode()).digest()[:4])


def _this_worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _orphaned(trial: FrozenTrial) -> bool:
    """Whether the process that ran this trial is gone; one on another host is taken to be alive."""
    worker = trial.user_attrs.get(WORKER)
    if worker is None:
        return True
    host, _, pid = str(worker).rpartition(":")
    if host != socket.gethostname() or int(pid) == os.getpid():
        return host == socket.gethostname()
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
