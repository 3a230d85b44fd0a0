"""The search: one Optuna study, cheap constraints before costly evaluations, no candidate evaluated twice."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from compress.argument_checks import is_whole
from hw_profiles.budget import Budget
from hw_profiles.errors import InputError
from nas.engine.history import History
from nas.engine.score import Score
from nas.engine.search_arguments import (
    check_arguments,
    check_callables,
    check_seconds,
    check_warm_start,
    checked_space,
    limits_of,
    returned_costs,
)
from nas.engine.search_loop import Plan, Sampler, SearchLoop
from nas.engine.successive_halving import check_rungs
from nas.engine.trial_ownership import Alone, Ownership, Shared
from nas.errors import UserFunctionError
from nas.execution.executor import Executor
from nas.execution.in_process import InProcess
from nas.execution.worker_processes import WorkerProcesses
from nas.samplers.problem import Problem
from nas.samplers.registry import sampler_named, surrogate
from nas.samplers.trial_attributes import ACCURACY, CAUSE, OBJECTIVES
from nas.storages.open_storage import open_storage

Space = Callable[[Any], Hashable]
Evaluate = Callable[[Any, float], float | Score]
Cost = Callable[[Any], Mapping[str, float]]

_COSTS_KEPT = 4096  # of candidates that no trial has

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
    sampler: Sampler | str | None = None,
    storage: str | Path | optuna.storages.BaseStorage | None = None,
    study_name: str | None = None,
    isolated: bool = False,
    workers: int = 1,
    executor: Executor | None = None,
    evaluation_timeout: float | None = None,
    warm_start: Sequence[Mapping[str, Any]] = (),
    on_trial: Callable[[optuna.Study], None] | None = None,
    alone: bool = False,
) -> optuna.Study:
    """Search ``space`` for candidates of high accuracy within ``budget``.

    A candidate that exceeds the budget, or equals an earlier one, is never evaluated: its trial is PRUNED with the
    attribute ``why``. Others are COMPLETE with the values of the objectives, PRUNED when an early rung shows no
    promise, or FAIL with the attribute ``cause``. Costs are stored in the user attribute ``cost``. The search also ends
    if no new candidate within the budget is left, or if most evaluations fail; the study attribute ``ended`` gives the
    reason.

    Several processes, also on several machines, may call this with the same ``storage`` and ``study_name``: they share
    the study, and the trials of a process that died are evaluated by another one.

    Args:
        space: ``space(trial)`` returns a hashable candidate, or a dict, list, set or array (compared by value).
        evaluate: ``evaluate(candidate, fidelity)`` returns an accuracy between 0 and 1, at a fidelity in (0, 1]. If it
            has an attribute ``alternative``, a fallback evaluation function, a candidate whose evaluation crashed or
            raised is evaluated by that before it counts as failed.
        cost: ``cost(candidate)`` returns the costs by name; lower is better.
        budget: upper limits of costs.
        objectives: ``"accuracy"`` is maximized, any other name is a cost and is minimized.
        n_trials: number of candidates whose evaluation starts, including earlier calls with the same storage.
        timeout: time limit in seconds.
        seed: random seed.
        rungs: fidelities at which candidates are compared; the last one is 1 (asynchronous successive halving,
            1810.05934).
        sampler: an Optuna sampler, its class, a name (``surrogate``, ``tpe``, ``random``), or a function that returns a
            sampler for a seed; by default a Gaussian process over the choices
            (:class:`nas.samplers.surrogate.SurrogateSampler`). Samplers by name, class or function are created anew for
            each trial from (seed, number), so that an interrupted search resumes exactly. Sampler instances keep their
            own state, so exact resumption is not guaranteed.
        storage: where the study is stored: a file, an address or an Optuna storage; by default in memory.
        study_name: name of the study in the storage.
        isolated: evaluate in separate processes: a candidate that dies, hangs or takes too much memory fails, and the
            search continues. ``evaluate`` must be picklable.
        workers: number of such processes; more than one are always isolated.
        executor: evaluate elsewhere (:mod:`nas.execution`).
        evaluation_timeout: time limit in seconds of one evaluation; by default ten times the longest one so far, at
            least a minute, and an hour until three evaluations have ended.
        warm_start: parameters of candidates to propose first, such as those of an earlier study
            (``[trial.params for trial in nas.pareto_front(earlier)]``); values that the space does not have are
            sampled.
        on_trial: called with the study after each trial.
        alone: no other process uses the study, so that unfinished trials are resumed at once.

    Returns:
        The Optuna study; see :func:`nas.winner`, :func:`nas.candidate`, :func:`nas.pareto_front` and
        :func:`nas.records`.

    Raises:
        InputError: an invalid argument, a limit or objective that ``cost`` does not return, or a first accuracy
            that is not between 0 and 1.
        UserFunctionError: ``cost`` raised, or ``evaluate`` failed for every candidate; it is a ValueError and has the
            ``study``.

    >>> study = search(lambda trial: trial.suggest_int("x", 0, 9), lambda x, fidelity: x / 9,
    ...                cost=lambda x: {"size": x}, budget={"size": 6}, n_trials=7)
    >>> winner(study)
    6
    """
    check_arguments(objectives, n_trials, timeout, seed)
    on_trial = (lambda study: None) if on_trial is None else on_trial
    check_callables(space=space, evaluate=evaluate, cost=cost, on_trial=on_trial)
    check_warm_start(warm_start)
    limits = limits_of(budget)
    fidelities = check_rungs(rungs)
    study = study_at(open_storage(storage), study_name, objectives)
    _spaces[study] = space
    candidates = checked_space(space)
    history = History(study, candidates)
    needed = dict.fromkeys((*limits, *(name for name in objectives if name != ACCURACY)))

    @lru_cache(maxsize=_COSTS_KEPT)
    def costs_of(found: Hashable) -> Mapping[str, float]:
        known = history.costs.get(found)
        return returned_costs(cost, found, needed) if known is None else known

    check_seconds("evaluation_timeout", evaluation_timeout)
    plan = Plan(
        n_trials=math.inf if n_trials is None else n_trials,
        deadline=math.inf if timeout is None else time.monotonic() + timeout,
        rungs=fidelities,
        seed=seed,
        sampler=_sampler(sampler),
        has_alternative=hasattr(evaluate, "alternative"),
        evaluation_timeout=evaluation_timeout,
        warm_start=warm_start,
        on_trial=on_trial,
    )
    problem = Problem(space=candidates, cost=costs_of, limits=limits, objectives=tuple(objectives))
    if executor is not None and not hasattr(executor, "submit"):
        raise InputError(f"executor must have the methods of nas.execution.executor.Executor, got {executor!r}")
    chosen = executor or _executor(evaluate, isolated=isolated, workers=workers)
    ownership: Ownership = Alone() if alone or storage is None else Shared(study)
    try:
        SearchLoop(study, problem, chosen, plan, history, ownership).run()
    finally:
        chosen.close()
        ownership.close()
    _check_any_succeeded(study)
    return study


def _check_any_succeeded(study: optuna.Study) -> None:
    """Raise an error instead of returning a study in which every evaluation failed."""
    trials = study.get_trials(deepcopy=False)
    failed = [trial for trial in trials if trial.state == TrialState.FAIL and CAUSE in trial.user_attrs]
    others = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)
    if failed and not any(trial.state in others for trial in trials):
        cause = failed[-1].user_attrs[CAUSE]
        message = f"evaluate failed for every candidate ({len(failed)} tried), the last with {cause}"
        raise UserFunctionError(message, study)


def _sampler(sampler: Sampler | str | None) -> Sampler:
    if sampler is None:
        return surrogate
    if isinstance(sampler, str):
        return sampler_named(sampler)
    if isinstance(sampler, type):
        return partial(_of_class, sampler)
    if not isinstance(sampler, optuna.samplers.BaseSampler) and not callable(sampler):
        raise InputError(f"sampler must be a sampler of Optuna, a name or a function of a seed, got {sampler!r}")
    return sampler


def _of_class(sampler: Any, seed: int) -> optuna.samplers.BaseSampler:
    made: optuna.samplers.BaseSampler = sampler(seed=seed)
    return made


def _executor(evaluate: Evaluate, *, isolated: bool, workers: int) -> Executor:
    if not is_whole(workers, 1):
        raise InputError(f"workers must be a whole number of at least 1, got {workers!r}")
    return WorkerProcesses(evaluate, workers) if isolated or workers > 1 else InProcess(evaluate)


def study_at(
    storage: optuna.storages.BaseStorage | None, study_name: str | None, objectives: Sequence[str]
) -> optuna.Study:
    """The study of that name, made where there is none.

    Raises:
        InputError: it has other objectives.
    """
    directions: list[Literal["maximize", "minimize"]] = [
        "maximize" if name == ACCURACY else "minimize" for name in objectives
    ]
    study = optuna.create_study(
        storage=storage, study_name=study_name or _only_name(storage), directions=directions, load_if_exists=True
    )
    named = study.user_attrs.get(OBJECTIVES, list(objectives))
    has = [direction.name.lower() for direction in study.directions]
    if named != list(objectives) or has != directions:
        raise InputError(
            f"the study {study.study_name!r} has the objectives {_objectives_text(has, named)}, "
            f"not {_objectives_text(directions, objectives)}"
        )
    study.set_user_attr(OBJECTIVES, named)
    return study


def _objectives_text(directions: Sequence[str], names: Sequence[str]) -> str:
    return ", ".join(f"{direction} {name}" for direction, name in zip_longest(directions, names, fillvalue="?"))


def _only_name(storage: optuna.storages.BaseStorage | None) -> str | None:
    """The name of the only study of a storage, so that the same call resumes it."""
    if storage is None:
        return None
    names = [study.study_name for study in storage.get_all_studies()]
    if len(names) > 1:
        raise InputError(f"the storage holds several studies, study_name must be one of {', '.join(sorted(names))}")
    return names[0] if names else "search"


def candidate(study: optuna.Study, trial: FrozenTrial) -> Any:
    """Return the candidate of a trial of a study that :func:`search` returned.

    Raises:
        InputError: the study did not come from ``search`` in this process.
    """
    if study not in _spaces:
        raise InputError("candidate: the study must be one that nas.search returned in this process")
    return _spaces[study](FixedTrial(trial.params, number=trial.number))


def winner(study: optuna.Study) -> Any | None:
    """Return the most accurate fully evaluated candidate, or None if there is none."""
    best = winning_trial(study)
    return None if best is None else candidate(study, best)


def winning_trial(study: optuna.Study) -> FrozenTrial | None:
    """The trial of :func:`winner`; the earlier one where two are equal."""
    ranked = ranked_trials(study)
    return ranked[0] if ranked else None


def ranked_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All evaluated trials, the most accurate first.

    Raises:
        InputError: a study that no search made.
    """
    if OBJECTIVES not in study.user_attrs:
        raise InputError(f"the study {study.study_name!r} was not made by nas.search")
    place = study.user_attrs[OBJECTIVES].index(ACCURACY)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (-trial.values[place], trial.number))
