"""Converts the trials of a study to training data of a model: values, partial scores, constraints, running trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.samplers.trial_attributes import ACCURACY, COST, STANDARD_ERROR, rung_key, rung_of

Array = npt.NDArray[np.float64]

_FINAL = rung_key(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Observations:
    """Rows of trials with ``values`` (N, objectives), all to be maximized, and whether each keeps the constraints.

    ``noise`` is the share of the accuracies' variance that is known to be chance, from the trials' standard errors.
    """

    rows: npt.NDArray[np.intp]
    values: Array
    feasible: npt.NDArray[np.bool_]
    noise: float = 0.0


def observations(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], objectives: Sequence[str] = (ACCURACY,)
) -> Observations:
    """The evaluated trials, and those stopped early with the final accuracy that others reached from such a score.

    ``objectives`` are accuracy and names of costs, which are in an attribute of the trials.
    """
    signs = np.array([1.0 if direction == StudyDirection.MAXIMIZE else -1.0 for direction in directions])
    values = {
        row: signs * trial.values
        for row, trial in enumerate(trials)
        if trial.state == TrialState.COMPLETE and all(map(math.isfinite, trial.values))
    }
    for row, value in _expected(trials).items() if len(objectives) == len(directions) else ():
        known = {**trials[row].user_attrs.get(COST, {}), ACCURACY: value}
        if all(name in known for name in objectives):
            values[row] = signs * [known[name] for name in objectives]
    rows = sorted(values)
    return Observations(
        rows=np.array(rows, dtype=np.intp),
        values=np.array([values[row] for row in rows]).reshape(len(rows), len(signs)),
        feasible=np.array([is_feasible(trials[row]) for row in rows], dtype=bool),
        noise=_share_of_chance([trials[row] for row in rows]),
    )


def _share_of_chance(trials: Sequence[FrozenTrial]) -> float:
    errors = [trial.user_attrs[STANDARD_ERROR] for trial in trials if STANDARD_ERROR in trial.user_attrs]
    scores = [trial.user_attrs[_FINAL] for trial in trials if _FINAL in trial.user_attrs]
    variance = float(np.var(scores)) if len(scores) > 1 else 0.0
    return min(1.0, float(np.mean(np.square(errors))) / variance) if errors and variance > 0 else 0.0


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether all constraints of a trial hold; so without any."""
    return all(value <= 0 for value in trial.constraints.values())


def running(trials: Sequence[FrozenTrial]) -> npt.NDArray[np.intp]:
    """Rows of the trials that other workers evaluate."""
    rows = [row for row, trial in enumerate(trials) if trial.state == TrialState.RUNNING and trial.params]
    return np.array(rows, dtype=np.intp)


def broken_constraints(trials: Sequence[FrozenTrial]) -> dict[str, tuple[npt.NDArray[np.intp], Array]]:
    """Rows and values of each constraint that some trial broke."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row, trial in enumerate(trials):
        for name, value in trial.constraints.items():
            if trial.params and math.isfinite(value):
                rows, values = found.setdefault(name, ([], []))
                rows.append(row)
                values.append(value)
    return {
        name: (np.array(rows, dtype=np.intp), np.array(values))
        for name, (rows, values) in found.items()
        if max(values) > 0
    }


def _expected(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """Final accuracies of the trials that were stopped at a rung: that of the rung and the median gain of others."""
    scores = [
        {key: value for key, value in trial.user_attrs.items() if rung_of(key) is not None}
        if trial.user_attrs and trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        else {}
        for trial in trials
    ]
    if not any(_FINAL in score and len(score) > 1 for score in scores):
        return {}
    gains: dict[str, list[float]] = {}
    for score in scores:
        if _FINAL in score:
            for key, value in score.items():
                gains.setdefault(key, []).append(score[_FINAL] - value)
    median = {key: float(np.median(gain)) for key, gain in gains.items()}
    expected = {}
    for row, (trial, score) in enumerate(zip(trials, scores, strict=True)):
        known = [key for key in score if key in median]
        if trial.state == TrialState.PRUNED and known:
            last = max(known, key=lambda key: rung_of(key) or 0.0)
            expected[row] = score[last] + median[last]
    return expected
