"""Warnings about a run, such as trainings that were too short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from compress.data.dataset import Dataset
from nas.samplers.trial_attributes import CAUSE, RETRIED, started

_FEWEST_EPOCHS, _FEWEST_STEPS = 3.0, 100


def run_warnings(rows: Sequence[Mapping[str, Any]], data: Dataset) -> list[str]:
    """One line for each reason why accuracies of a run are less reliable than they look."""
    alike = data.facts.get("near_duplicates", {}).get("test", 0)
    flattered = [
        f"{alike} of {len(data.test)} test images are near-duplicates of a training or validation image, so the test "
        "accuracy is likely overestimated"
    ]
    return short_trainings(rows) + diverged_trainings(rows) + (flattered if alike else [])


def missing_weights(init: Mapping[str, Any]) -> list[str]:
    """One line where pretrained weights were requested and none were found.

    >>> missing_weights({"preset": None, "text": "starts from random weights"})
    ['starts from random weights']
    """
    return [str(init["text"])] if init and init["preset"] is None else []


def lost_on_test(rows: Sequence[Mapping[str, Any]], allowed: float) -> list[str]:
    """One line where the deployed file lost more points on the test images than was allowed, and the stages could not
    see it because they compared files on images that both had learned from.

    >>> winner = {"role": "winner", "val_seen": True, "test_accuracy": 0.95}
    >>> lost_on_test([winner, {"deployed": True, "test_accuracy": 0.93}], 1.0)[0][:65]
    'the final model is 2.00 points less accurate on the test set than'
    >>> lost_on_test([winner, {"deployed": True, "test_accuracy": 0.94}], 1.5)
    []
    """
    winner = next(row for row in rows if row.get("role") == "winner")
    deployed = next(row for row in rows if row.get("deployed"))
    lost = 100 * (winner["test_accuracy"] - deployed["test_accuracy"])
    if not winner.get("val_seen") or lost <= allowed:
        return []
    return [
        f"the final model is {lost:.2f} points less accurate on the test set than the uncompressed one (limit: "
        f"{allowed:.2f}). This could not be detected on the validation images because both models were trained on them"
    ]


def failed_candidates(study: optuna.Study) -> list[str]:
    """One line where candidates could not be trained, or only in another memory format."""
    trials = study.get_trials(deepcopy=False)
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    retried = [trial for trial in trials if RETRIED in trial.user_attrs and trial.state != TrialState.FAIL]
    lines = []
    if failed:
        cause = failed[-1].user_attrs.get(CAUSE, "unknown cause")
        lines.append(f"{len(failed)} of {sum(map(started, trials))} candidates failed to train; last error: {cause}")
    if retried:
        cause = retried[-1].user_attrs[RETRIED]
        lines.append(f"{len(retried)} candidates were retrained in a different memory format; last reason: {cause}")
    return lines


def short_trainings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each network whose training was too short to judge its accuracy.

    >>> short_trainings([{"label": "int8", "training": {"epochs": 0.8, "steps": 35}}])[0][:73]
    'int8: trained for only 0.8 epochs (35 steps), too few for a reliable accu'
    """
    short = [
        (row["label"], row["training"])
        for row in rows
        if "training" in row
        and (row["training"]["epochs"] < _FEWEST_EPOCHS or row["training"]["steps"] < _FEWEST_STEPS)
    ]
    return [
        f"{label}: trained for only {training['epochs']:.1f} epochs ({training['steps']} steps), too few for a "
        "reliable accuracy estimate; increase the time or epochs"
        for label, training in short
    ]


def diverged_trainings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each network whose training diverged and went on from an earlier state with a lower rate.

    >>> diverged_trainings([{"label": "int8", "training": {"rollbacks": 1}}])
    ['int8: training diverged and was resumed at a quarter of the learning rate (once); use a lower learning_rate']
    """
    found = [(row["label"], row["training"].get("rollbacks", 0)) for row in rows if "training" in row]
    return [
        f"{label}: training diverged and was resumed at a quarter of the learning rate "
        f"({'once' if times == 1 else f'{times} times'}); use a lower learning_rate"
        for label, times in found
        if times
    ]
