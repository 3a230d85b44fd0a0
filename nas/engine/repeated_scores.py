"""Re-evaluates the best candidates if the error of their scores is larger than the differences between them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from nas.engine.candidate_evaluation import ShortTraining
from nas.engine.search import candidate, ranked_trials
from nas.execution.executor import EvaluationError, Executor
from nas.samplers.trial_attributes import REPEATED_SCORES, STANDARD_ERROR

_MOST_LEADERS, _MOST_ROUNDS = 4, 3
_DEVIATIONS = 2.0
_PATIENCE, _STARTING = 2.0, 60.0  # an evaluation that takes much longer than expected has hung


@dataclass(frozen=True, slots=True)
class RepeatedTraining:
    """Scores a pair of a candidate and the number of a repetition."""

    training: ShortTraining

    def __call__(self, pair: tuple[Any, int], fidelity: float) -> float:
        """Accuracy on the validation images of that repetition."""
        arch, number = pair
        return self.training.repeated(number)(arch, fidelity).accuracy

    @property
    def alternative(self) -> RepeatedTraining:
        """The same by other kernels, for where the usual ones crash."""
        return RepeatedTraining(self.training.alternative)


def repeat_scores(study: optuna.Study, executor: Executor, seconds: float, *, each: float = 0.0) -> None:
    """Score the best candidates again, with other seeds and other validation images, while the time lasts.

    They are up to four whose accuracies are within two standard errors of the best one; all of them are scored the same
    number of times, at most three times more. No round begins that would not end within ``seconds``, as far as an
    evaluation takes ``each`` seconds, or a round as long as the longest one so far. The accuracies are stored in the
    study under ``repeated_scores``, from where the same call resumes. The ``executor``, made for a
    :class:`RepeatedTraining`, is closed.
    """
    deadline, longest = time.monotonic() + seconds, 0.0
    with closing(executor):
        for number in range(_rounds(study) + 1, _MOST_ROUNDS + 1):
            began = time.monotonic()
            leaders = _scored_so_far(study, leading_trials(study))
            expected = max(longest, each * math.ceil(len(leaders) / executor.workers))
            if len(leaders) < 2 or began + expected > deadline:
                return
            pairs = [(candidate(study, trial), number) for trial in leaders]
            futures = [executor.submit(pair, 1.0, seconds=_PATIENCE * seconds + _STARTING) for pair in pairs]
            _keep(study, leaders, [_score(future) for future in futures])
            longest = max(longest, time.monotonic() - began)


def leading_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best trials whose scores differ by less than their error."""
    ranked = ranked_trials(study)
    if not ranked or STANDARD_ERROR not in ranked[0].user_attrs:
        return ranked[:1]
    near = ranked[0].values[0] - _DEVIATIONS * ranked[0].user_attrs[STANDARD_ERROR]
    return [trial for trial in ranked[:_MOST_LEADERS] if trial.values[0] >= near]


def by_all_scores(study: optuna.Study, ranked: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials with the repeated ones first, by the mean of all scores of each."""
    repeated = _scored_so_far(study, ranked) if _rounds(study) else []
    kept = _kept(study)
    first = sorted(repeated, key=lambda trial: -float(np.mean([trial.values[0], *kept[str(trial.number)]])))
    return [*first, *(trial for trial in ranked if trial not in first)]


def _kept(study: optuna.Study) -> dict[str, list[float]]:
    return {number: list(scores) for number, scores in study.user_attrs.get(REPEATED_SCORES, {}).items()}


def _rounds(study: optuna.Study) -> int:
    return max(map(len, _kept(study).values()), default=0)


def _scored_so_far(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that no round left without a score."""
    kept, rounds = _kept(study), _rounds(study)
    return [trial for trial in trials if len(kept.get(str(trial.number), ())) == rounds]


def _score(future: Future[Any]) -> float | None:
    try:
        return float(future.result())
    except EvaluationError:
        return None


def _keep(study: optuna.Study, leaders: Sequence[FrozenTrial], scores: Sequence[float | None]) -> None:
    kept = _kept(study)
    for trial, score in zip(leaders, scores, strict=True):
        if score is not None:
            kept.setdefault(str(trial.number), []).append(score)
    study.set_user_attr(REPEATED_SCORES, kept)
