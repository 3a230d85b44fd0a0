"""The loop of a search: propose, decide, evaluate, tell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState, create_trial

from hw_profiles.budget import violations
from hw_profiles.errors import InputError
from nas.engine.history import History
from nas.engine.score import Score
from nas.engine.search_arguments import checked_accuracy, may_be_chance
from nas.engine.successive_halving import promising, surely_dominated
from nas.engine.trial_ownership import Ownership
from nas.engine.unhashable_candidates import plain
from nas.engine.unseen_candidates import Unseen
from nas.execution.executor import EvaluationError, Executor
from nas.samplers import trial_attributes as attribute
from nas.samplers.problem import Problem, UsesProblem
from nas.samplers.registry import random
from nas.samplers.seeded_by_number import SeededByNumber, seed_for
from nas.samplers.space_trial import propose
from nas.samplers.trial_attributes import ACCURACY, REPEATS
from nas.storages.dashboard import limits_text
from nas.storages.delayed_trial import DelayedTrial
from nas.storages.lease import WORKER

log = logging.getLogger("fitnas")

Sampler = BaseSampler | Callable[[int], BaseSampler]

_REPEATS_BEFORE_RANDOM = 10
_REJECTED_BEFORE_LOOKING = 20  # proposals in a row that were rejected without an evaluation
_MOST_ATTEMPTS = 25  # at one candidate whose process died: no kill from outside meets one so often
_LOOK_SECONDS = 0.5  # between two looks at what other workers do
_FEWEST_TIMES, _TIMES_THE_LONGEST, _SHORTEST_LIMIT, _FIRST_LIMIT = 3, 10, 60.0, 3600.0
_FEWEST_EVALUATIONS, _MOST_FAILED = 10, 0.75


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The settings of a search."""

    n_trials: float
    deadline: float
    rungs: tuple[float, ...]
    seed: int
    sampler: Sampler
    has_alternative: bool
    evaluation_timeout: float | None
    warm_start: Sequence[Mapping[str, Any]]
    on_trial: Callable[[optuna.Study], None]


@dataclass(slots=True)
class _Evaluation:
    """A candidate that is being evaluated, and the identifier and number of its trial."""

    trial_id: int
    number: int
    found: Hashable
    costs: Mapping[str, float]
    rung: int = 0
    alternative: bool = False
    began: float = 0.0


@dataclass(slots=True)
class SearchLoop:
    """Proposes candidates, has the worthwhile ones evaluated, and writes what became of each into the study."""

    study: optuna.Study
    problem: Problem
    executor: Executor
    plan: Plan
    history: History
    ownership: Ownership
    _running: dict[Future[Any], _Evaluation] = field(default_factory=dict)
    _longest: float = 0.0  # seconds of an evaluation at full fidelity
    _ended_evaluations: int = 0
    _completed: int = 0  # evaluations of this process, those that were stopped early included
    _failed: int = 0
    _last_cause: str = ""
    _ended: str | None = None
    _nothing_left: str | None = None  # why no candidate is left to propose
    _queued: Mapping[str, Any] | None = None  # parameters of the next proposal
    _delayed: DelayedTrial = field(init=False)
    _asking: optuna.Study = field(init=False)

    def __post_init__(self) -> None:
        self._delayed = DelayedTrial(self.study._storage)
        self._asking = optuna.Study(self.study.study_name, self._delayed)
        self._asking.sampler = self.study.sampler = self._sampler()

    def run(self) -> None:
        """Search until enough candidates were evaluated, the time limit is reached, or nothing is left to evaluate."""
        studies = (self.study, self._asking)
        for study in studies:  # some samplers stop the study when they have nothing left
            study._thread_local.in_optimize_loop = True
        try:
            while self._step():
                pass
        finally:
            for study in studies:
                study._thread_local.in_optimize_loop = False

    def _step(self) -> bool:
        self.history.refresh()
        if len(self._running) < self.executor.workers and self._goes_on():
            if not self._take_over():
                self._propose()
            return True
        if self._running:
            self._settle_finished()
            return True
        return self._wait_for_others()

    def _goes_on(self) -> bool:
        """Whether to start another evaluation; if not, the study stores the reason why the search ended."""
        evaluated = self._completed + self._failed
        if time.monotonic() >= self.plan.deadline:
            return self._end("time limit reached", quiet=True)
        if evaluated >= _FEWEST_EVALUATIONS and self._failed > _MOST_FAILED * evaluated:
            return self._end(f"{self._failed} of {evaluated} evaluations failed, the last with: {self._last_cause}")
        return bool(self.ownership.left(self.history.open)) or self._has_more_to_propose()

    def _has_more_to_propose(self) -> bool:
        if self.history.started >= self.plan.n_trials:
            return self._end("all requested candidates were evaluated", quiet=True)
        if self.study._stop_flag or self._asking._stop_flag:
            return self._end("sampler exhausted")
        if self._nothing_left is not None:
            return self._end(self._nothing_left)
        return self.history.rejected_in_a_row() < _REJECTED_BEFORE_LOOKING or self._look_for_unseen()

    def _wait_for_others(self) -> bool:
        """Whether others still evaluate candidates, which would have to be taken over if they died."""
        others = any(map(attribute.started, self.history.open))
        if not (self.ownership.shared and others and time.monotonic() < self.plan.deadline):
            return False
        time.sleep(_LOOK_SECONDS)
        return True

    def _look_for_unseen(self) -> bool:
        """Queue a candidate that keeps the budget and is new, found at random; False and the reason without one."""
        unseen = Unseen(self.problem, self.history.costs, seed_for(self.plan.seed, len(self.history.trials)))
        params = unseen.find(self.plan.deadline)
        self.study.set_user_attr(attribute.PROBED, unseen.summary())
        if params is None:
            self._nothing_left = unseen.why_none()
            return self._end(self._nothing_left)
        self._queued = params
        return True

    def _end(self, why: str, *, quiet: bool = False) -> bool:
        if quiet and self._failed and not (self._completed or self.history.completed):
            why, quiet = f"all {self._failed} evaluations failed, the last with: {self._last_cause}", False
        if self._ended != why:
            self._ended = why
            self.study.set_user_attr(attribute.ENDED, why)
            log.log(logging.INFO if quiet else logging.WARNING, "the search ended: %s", why)
        return False

    def _propose(self) -> None:
        """One candidate: rejected, which costs one entry in the study, or evaluated."""
        trial = self._ask()
        found = self.problem.space(trial)
        costs = self.problem.cost(found)
        excess = violations(costs, self.problem.limits)
        trial.set_user_attr(WORKER, self.ownership.worker)
        trial.set_user_attr(attribute.COST, costs)
        trial.set_user_attr(attribute.FEASIBLE, all(value <= 0 for value in excess.values()))
        for name, value in excess.items():
            trial.set_constraint(name, value)
        if self.problem.limits:
            trial.set_user_attr(attribute.LIMITS, limits_text(costs, self.problem.limits))
        if hasattr(candidate := plain(found), "summary"):
            trial.set_user_attr(attribute.NETWORK, candidate.summary())
        over = [f"{name} is {costs[name]:g}, the limit {self._limit(name):g}" for name, v in excess.items() if v > 0]
        if over or found in self.history.costs:
            trial.set_user_attr(attribute.WHY, "exceeds the budget: " + "; ".join(over) if over else REPEATS)
            rejected = self._delayed.write(trial._trial_id, TrialState.PRUNED)
            self.history.meet(rejected.number, found, costs)
            self.plan.on_trial(self.study)
        else:
            trial.set_user_attr(attribute.STARTED, True)
            self._start(trial._trial_id, found, costs)

    def _start(self, proposed: int, found: Hashable, costs: Mapping[str, float]) -> None:
        """Write the proposal, and evaluate it unless other workers wrote as much in the meantime."""
        expected = len(self.history.trials)
        stored = self._delayed.write(proposed)
        self.history.meet(stored.number, found, costs)
        if stored.number != expected:
            self.history.refresh()
            repeats = self.history.met_before(stored.number, found)
            if repeats or self.history.started_before(stored.number) >= self.plan.n_trials:
                self._note(stored._trial_id, attribute.STARTED, False)
                why = REPEATS if repeats else "other workers had started as many evaluations as were requested"
                self._prune(stored._trial_id, stored.number, why)
                return
        self.ownership.hold(stored._trial_id)
        self._submit(_Evaluation(stored._trial_id, stored.number, found, costs))

    def _ask(self) -> Trial:
        number = len(self.history.trials)
        if self._queued is None and number < len(self.plan.warm_start):
            generator = np.random.default_rng(seed_for(self.plan.seed, number))
            self._queued = propose(self.problem.space, self.plan.warm_start[number], generator).params
        if self._queued is None:
            return self._asking.ask()
        template = create_trial(state=TrialState.RUNNING, system_attrs={"fixed_params": dict(self._queued)})
        self._queued = None
        return Trial(self._asking, self._delayed.create_new_trial(self.study._study_id, template))

    def _limit(self, name: str) -> float:
        return self.problem.limits[name]

    def _take_over(self) -> bool:
        """Evaluate once more what a process that died was evaluating."""
        for left in self.ownership.left(self.history.open):
            if self.ownership.take_over(left):
                self._again(left)
                return True
        return False

    def _again(self, left: FrozenTrial) -> None:
        trial_id, number = left._trial_id, left.number
        attempts = left.user_attrs.get(attribute.ATTEMPTS, 1) + 1
        if not attribute.started(left):
            self._prune(trial_id, number, "left by a process that ended before it was evaluated")
        elif attempts > _MOST_ATTEMPTS:
            self._fail(trial_id, number, f"the process ended {_MOST_ATTEMPTS} times during its evaluation")
        else:
            self._note(trial_id, attribute.ATTEMPTS, attempts)
            found = self.problem.space(FixedTrial(left.params, number=number))
            self.ownership.hold(trial_id)
            self._submit(_Evaluation(trial_id, number, found, left.user_attrs[attribute.COST]))

    def _submit(self, evaluation: _Evaluation) -> None:
        rung = self.plan.rungs[evaluation.rung]
        seconds = self.plan.evaluation_timeout or self._longest_wait(rung)
        evaluation.began = time.monotonic()
        future = self.executor.submit(
            plain(evaluation.found), rung, alternative=evaluation.alternative, seconds=seconds
        )
        self._running[future] = evaluation

    def _longest_wait(self, rung: float) -> float:
        """How long an evaluation may take that nobody set a limit for."""
        if self._ended_evaluations >= _FEWEST_TIMES:
            return max(_SHORTEST_LIMIT, _TIMES_THE_LONGEST * self._longest * rung)
        return max(_SHORTEST_LIMIT, min(_FIRST_LIMIT, self.plan.deadline - time.monotonic()))

    def _settle_finished(self) -> None:
        """Wait until an evaluation ends, and write what became of it."""
        waits_for_others = self.ownership.shared and len(self._running) < self.executor.workers
        timeout = _LOOK_SECONDS if waits_for_others else None
        done, _ = wait(self._running, timeout, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda future: self._running[future].number):
            self._settle(self._running.pop(future), future)

    def _settle(self, evaluation: _Evaluation, future: Future[Any]) -> None:
        trial_id, number = evaluation.trial_id, evaluation.number
        if not self.ownership.holds(trial_id):  # another worker took it over, and will tell
            self.ownership.release(trial_id)
            return
        try:
            returned = future.result()
        except EvaluationError as error:
            self._retry_or_fail(evaluation, str(error), retry_may_help=error.retry_may_help)
            return
        value = returned.accuracy if isinstance(returned, Score) else returned
        try:
            accuracy = checked_accuracy(value)
        except InputError as error:
            self._settle_wrong_value(evaluation, value, error)
            return
        rung = self.plan.rungs[evaluation.rung]
        self._longest = max(self._longest, (time.monotonic() - evaluation.began) / rung)
        self._ended_evaluations += 1
        self._note(trial_id, attribute.rung_key(rung), accuracy)
        if isinstance(returned, Score):
            self._note(trial_id, attribute.HALVES, list(returned.halves))
            self._note(trial_id, attribute.STANDARD_ERROR, returned.standard_error)
        if rung == 1:
            self._completed += 1
            self._tell(number, values=self._values(accuracy, evaluation.costs))
        elif (why := self._why_stop(accuracy, evaluation, rung)) is None:
            evaluation.rung += 1
            self._submit(evaluation)
        else:
            self._completed += 1
            self._prune(trial_id, number, f"{why} at fidelity {rung:g}: accuracy {accuracy:.4f}")

    def _settle_wrong_value(self, evaluation: _Evaluation, value: Any, error: InputError) -> None:
        """One candidate may give NaN in bfloat16; a first one that gives 97 or None tells how all are evaluated."""
        if may_be_chance(value) or self._completed or self.history.completed:
            self._retry_or_fail(evaluation, f"InputError: {error}", retry_may_help=True)
            return
        self._fail(evaluation.trial_id, evaluation.number, f"InputError: {error}")
        raise error

    def _retry_or_fail(self, evaluation: _Evaluation, cause: str, *, retry_may_help: bool) -> None:
        if retry_may_help and self.plan.has_alternative and not evaluation.alternative:
            self._note(evaluation.trial_id, attribute.RETRIED, cause)
            evaluation.alternative = True
            self._submit(evaluation)
        else:
            self._fail(evaluation.trial_id, evaluation.number, cause)

    def _why_stop(self, accuracy: float, evaluation: _Evaluation, rung: float) -> str | None:
        """Why an evaluation does not go on after a rung; None where it does."""
        others = [trial for trial in self.history.at_rung(rung) if trial.number != evaluation.number]
        ended = [trial for trial in others if attribute.rung_key(1) in trial.user_attrs]
        losses = self._losses(accuracy, evaluation.costs)
        if not promising(losses, self._losses_at(rung, others)):
            return "not among the best third"
        if surely_dominated(losses, self._losses_at(rung, ended), self._losses_at(1, ended)):
            return "likely to be dominated by another one, judged"
        return None

    def _losses_at(self, rung: float, trials: Sequence[FrozenTrial]) -> list[tuple[float, ...]]:
        key = attribute.rung_key(rung)
        return [self._losses(trial.user_attrs[key], trial.user_attrs[attribute.COST]) for trial in trials]

    def _values(self, accuracy: float, costs: Mapping[str, float]) -> list[float]:
        return [accuracy if name == ACCURACY else costs[name] for name in self.problem.objectives]

    def _losses(self, accuracy: float, costs: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(-accuracy if name == ACCURACY else costs[name] for name in self.problem.objectives)

    def _note(self, trial_id: int, key: str, value: Any) -> None:
        self.study._storage.set_trial_user_attr(trial_id, key, value)

    def _prune(self, trial_id: int, number: int, why: str) -> None:
        self._note(trial_id, attribute.WHY, why)
        self._tell(number, state=TrialState.PRUNED)

    def _fail(self, trial_id: int, number: int, cause: str) -> None:
        self._failed, self._last_cause = self._failed + 1, cause
        self._note(trial_id, attribute.CAUSE, cause)
        self._tell(number, state=TrialState.FAIL)

    def _tell(self, number: int, *, state: TrialState | None = None, values: list[float] | None = None) -> None:
        trial_id = self.study._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        self.study.tell(number, values, state=state)
        self.ownership.release(trial_id)
        self.plan.on_trial(self.study)

    def _sampler(self) -> BaseSampler:
        if isinstance(self.plan.sampler, BaseSampler):
            return self._with_problem(self.plan.sampler)
        return SeededByNumber(self._sampler_of)

    def _sampler_of(self, number: int) -> BaseSampler:
        """The sampler of one trial: random after many repeats, so that no sampler proposes the same for ever."""
        assert not isinstance(self.plan.sampler, BaseSampler)
        seed = seed_for(self.plan.seed, number)
        last = self.history.trials[max(0, number - _REPEATS_BEFORE_RANDOM) : number]
        if len(last) == _REPEATS_BEFORE_RANDOM and all(map(attribute.repeated, last)):
            return random(seed)
        return self._with_problem(self.plan.sampler(seed))

    def _with_problem(self, sampler: BaseSampler) -> BaseSampler:
        return sampler.with_problem(self.problem) if isinstance(sampler, UsesProblem) else sampler
