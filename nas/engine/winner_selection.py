"""Selects the winner of a finished search, or explains why nothing fits."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from hw_profiles.budget import Budget, violations
from nas.engine.candidate_evaluation import CandidateCost
from nas.engine.infeasibility import Infeasibility
from nas.engine.repeated_scores import by_all_scores
from nas.engine.score import agreement_of_halves
from nas.engine.search import candidate, ranked_trials
from nas.errors import NothingFitsError
from nas.samplers.trial_attributes import CAUSE, COST, PROBED, repeated
from search_spaces.arch import Arch

log = logging.getLogger("fitnas")

FINALISTS = "finalists"
"""The study's attribute with the costs of the candidates that were looked at again, by the number of the trial."""
_FEWEST_FINALISTS = 3
CHANCE = 0.2
"""A rank correlation of two halves of the validation images below which the order of the candidates is chance."""


def choose_winner(
    study: optuna.Study, cost: CandidateCost, budget: Budget, searched: Mapping[str, float], *, tried_first: int = 0
) -> Arch:
    """The most accurate candidate that keeps the budget when its costs are taken once more. Those that were scored more
    than once come first, by the mean of their scores.

    Where two halves of the validation images do not agree on the order of the candidates, that order is chance, and the
    first ``tried_first`` of them are preferred: known networks, and the likely part of a pretrained one.

    ``searched`` are the limits that the search used, at most those of the budget. The costs of these finalists,
    three at least, are kept in the study under ``FINALISTS``.

    Raises:
        NothingFitsError: none does; the message names the limit that binds and what would be enough.
    """
    again: dict[int, Mapping[str, float]] = {}
    chosen: list[Arch] = []
    for trial in _in_order(study, tried_first):
        if chosen and len(again) >= _FEWEST_FINALISTS:
            break
        arch: Arch = candidate(study, trial)
        again[trial.number] = cost(arch)
        if all(value <= 0 for value in violations(again[trial.number], budget.limits()).values()):
            chosen.append(arch)
    study.set_user_attr(FINALISTS, {str(number): dict(costs) for number, costs in again.items()})
    if not chosen:
        raise NothingFitsError(why_nothing_fits(study, budget, searched, again))
    return chosen[0]


def _in_order(study: optuna.Study, tried_first: int) -> list[FrozenTrial]:
    ranked = by_all_scores(study, ranked_trials(study))
    agreement = agreement_of_halves(study)
    if agreement is None or agreement >= CHANCE:
        return ranked
    known = [trial for trial in ranked if trial.number < tried_first]
    log.warning(
        "the ranking of %d candidates is unreliable: split-half rank correlation %.2f%s",
        len(ranked),
        agreement,
        "; one of the networks tried first is selected" if known else "",
    )
    return known + [trial for trial in ranked if trial not in known]


def why_nothing_fits(
    study: optuna.Study, budget: Budget, searched: Mapping[str, float], again: Mapping[int, Mapping[str, float]]
) -> str:
    """The limit that most candidates break, the smallest value found, and the smallest change of one limit that would
    work.

    ``again`` are the costs of evaluated trials that were taken once more, and then compared with the budget itself.
    """
    met = Infeasibility(budget.limits())
    for trial in study.get_trials(deepcopy=False):
        if COST in trial.user_attrs and not repeated(trial):
            if trial.number in again:
                met.add(again[trial.number])
            else:
                met.add(trial.user_attrs[COST], searched)
    probed = study.user_attrs.get(PROBED, {"count": 0, "costs": []})
    for costs in probed["costs"]:
        met.add(costs, searched)
    met.count += probed["count"] - len(probed["costs"])
    if met.count == 0:
        return f"no candidate was tried ({_first_failure(study) or 'the time was too short'})"
    if not met.limits or met.feasible:
        failed = _first_failure(study)
        why = f"the first failed with {failed}" if failed else "allow more time"
        return f"of {met.count} candidates some are within the budget, but none was evaluated in full: {why}"
    return met.explain(searched)


def _first_failure(study: optuna.Study) -> str | None:
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return next((str(t.user_attrs[CAUSE]) for t in failed if CAUSE in t.user_attrs), None)
