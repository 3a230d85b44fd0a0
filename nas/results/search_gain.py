"""Whether a search found a better network than the reference networks among its candidates."""

from __future__ import annotations

from typing import Any

import optuna

from nas.engine.score import agreement_of_halves
from nas.engine.search import ranked_trials
from nas.results.prediction_statistics import interval_of
from nas.samplers.trial_attributes import REPEATED_SCORES
from search_spaces.space import NETWORK, SEARCHED


def search_gain(study: optuna.Study, val_images: int) -> dict[str, Any] | None:
    """The best known network and the best one that was searched for, each after the same short training, with 95%
    intervals of their accuracies, how well two halves of the validation images agree on the order of all, and the
    accuracies of those that were scored again; None where there were no known networks among the candidates."""
    trials = [trial for trial in ranked_trials(study) if NETWORK in trial.params]
    known = [trial for trial in trials if trial.params[NETWORK] != SEARCHED]
    searched = [trial for trial in trials if trial.params[NETWORK] == SEARCHED]
    if not known:
        return None
    found = {"known": _facts(known[0], val_images), "searched": _facts(searched[0], val_images) if searched else None}
    return {
        **found,
        "candidates": {"known": len(known), "searched": len(searched)},
        "agreement_of_halves": agreement_of_halves(study),
        "repeated_scores": study.user_attrs.get(REPEATED_SCORES, {}),
    }


def _facts(trial: optuna.trial.FrozenTrial, val_images: int) -> dict[str, Any]:
    accuracy = trial.values[0]
    low, high = interval_of(accuracy, val_images)
    return {
        "trial": trial.number,
        "network": trial.params[NETWORK],
        "val_accuracy": accuracy,
        "val_accuracy_low": low,
        "val_accuracy_high": high,
    }
