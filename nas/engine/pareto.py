"""The Pareto front of the evaluated candidates."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial

from hw_profiles.spelling_suggestions import check_known
from nas.engine.search import ranked_trials
from nas.samplers.trial_attributes import COST


def pareto_front(study: optuna.Study, cost: str = "latency_ms") -> list[FrozenTrial]:
    """Return the Pareto-optimal trials of accuracy and a cost, most accurate first.

    Raises:
        InputError: the trials have no such cost, or the study was not made by a search.

    >>> from nas import search
    >>> study = search(lambda t: t.suggest_int("x", 0, 3), lambda x, f: [0.1, 0.5, 0.4, 0.9][x],
    ...                cost=lambda x: {"size": x}, n_trials=4)
    >>> [t.params["x"] for t in pareto_front(study, "size")]
    [3, 1, 0]
    """
    front: list[FrozenTrial] = []
    cheapest = float("inf")
    ranked = ranked_trials(study)
    for trial in ranked[:1]:
        check_known("pareto_front: unknown cost", cost, trial.user_attrs[COST])
    for trial in _by_accuracy_then(cost, ranked, study):
        if trial.user_attrs[COST][cost] < cheapest:
            front.append(trial)
            cheapest = trial.user_attrs[COST][cost]
    return front


def _by_accuracy_then(cost: str, trials: Sequence[FrozenTrial], study: optuna.Study) -> list[FrozenTrial]:
    place = study.user_attrs["objectives"].index("accuracy")
    return sorted(trials, key=lambda trial: (-trial.values[place], trial.user_attrs[COST][cost], trial.number))
