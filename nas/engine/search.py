"""The search: one Optuna study, cheap constraints before costly evaluations, no candidate evaluated twice."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
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
    checked_space,
    limits_of,
    told_costs,
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

    ``space(trial)`` gives a candidate that can be hashed, or a dict, list, set or array, which are equal where their
    contents are; ``cost(candidate)`` its costs (lower is better),
    ``evaluate(candidate, fidelity)`` its accuracy in 0..1 at a fidelity in (0, 1]. A candidate that breaks the
    budget, or equals an earlier one, is never evaluated: its trial is PRUNED with the attribute ``why``. Others are
    COMPLETE with the objectives' values, PRUNED when an early rung shows no promise, or FAIL with the attribute
    ``cause``. Costs stand in the attribute ``cost``.

    ``n_trials`` counts candidates whose evaluation started, earlier runs on the same storage included; ``timeout`` is
    in seconds. The search also ends where no candidate is left that keeps the budget and is new, or where most
    evaluations fail; the study's attribute ``ended`` gives the reason. ``rungs`` are the fidelities at which candidates
    are judged, the last is 1 (asynchronous successive halving, 1810.05934).

    ``sampler`` is one of Optuna's, a name (``surrogate``, ``tpe``, ``random``), or a function that makes one from a
    seed; by default a Gaussian process over the choices (:class:`nas.samplers.surrogate.SurrogateSampler`), seeded
    anew for each trial from (seed, number), so that an interrupted search continues as if nothing had happened. A
    sampler that is handed over as an object has a state of its own, so then that is not promised.

    With ``isolated``, or with several ``workers``, candidates are evaluated in processes of their own: one that dies,
    hangs or takes too much memory is FAIL, and the search goes on. ``evaluate`` must be one that can be pickled. Where
    it has an attribute ``alternative``, another such function, what crashed or raised is tried by that before it
    counts as failed. ``evaluation_timeout`` limits one evaluation; by default to ten times the longest one so far, at
    least a minute, and to an hour while three have not ended. ``executor`` evaluates elsewhere (:mod:`nas.execution`).

    ``warm_start`` are parameters of candidates to propose first, such as those of the best trials of an earlier study
    (``[trial.params for trial in nas.pareto_front(earlier)]``); a value that the space does not have is drawn.

    Several processes, also on several machines, may call this with one ``storage`` and ``study_name``: they share the
    study, and what one that died was evaluating is evaluated by another. With ``alone`` it is known that nobody else
    works on it, and any trial that is not finished is taken up at once. ``on_trial(study)`` is called after each trial.

    Raises:
        InputError: an argument that cannot be, a limit or objective that ``cost`` does not tell, or a first accuracy
            that is none in 0..1.
        UserFunctionError: ``cost`` raised, or ``evaluate`` failed for each candidate; it is a ValueError and has the
            ``study``.

    >>> study = search(lambda trial: trial.suggest_int("x", 0, 9), lambda x, fidelity: x / 9,
    ...                cost=lambda x: {"size": x}, budget={"size": 6}, n_trials=7)
    >>> winner(study)
    6
    """
    check_arguments(objectives, n_trials, timeout, seed)
    check_callables(space=space, evaluate=evaluate, cost=cost)
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
        return told_costs(cost, found, needed) if known is None else known

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
        on_trial=on_trial or (lambda study: None),
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
    """Refuse to return a study without a winner where evaluations failed, and nothing else ended or goes on."""
    trials = study.get_trials(deepcopy=False)
    failed = [trial for trial in trials if trial.state == TrialState.FAIL and CAUSE in trial.user_attrs]
    others = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)
    if failed and not any(trial.state in others for trial in trials):
        cause = failed[-1].user_attrs[CAUSE]
        told = f"evaluate failed for every candidate ({len(failed)} tried), the last with {cause}"
        raise UserFunctionError(told, study)


def _sampler(sampler: Sampler | str | None) -> Sampler:
    if sampler is None:
        return surrogate
    if isinstance(sampler, str):
        return sampler_named(sampler)
    if not isinstance(sampler, optuna.samplers.BaseSampler) and not callable(sampler):
        raise InputError(f"sampler must be a sampler of Optuna, a name or a function of a seed, got {sampler!r}")
    return sampler


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
    """The name of the only study of a storage, so that the same call again goes on with it."""
    if storage is None:
        return None
    names = [study.study_name for study in storage.get_all_studies()]
    if len(names) > 1:
        raise InputError(f"the storage holds several studies, study_name must be one of {', '.join(sorted(names))}")
    return names[0] if names else "search"


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
    place = study.user_attrs[OBJECTIVES].index(ACCURACY)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (-trial.values[place], trial.number))
