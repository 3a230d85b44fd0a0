"""Selects the winner of a finished search, or explains why nothing fits."""

from __future__ import annotations

from collections.abc import Mapping

import optuna
from optuna.trial import TrialState

from hw_profiles.budget import Budget, violations
from nas.engine.candidate_evaluation import CandidateCost
from nas.engine.search import CAUSE, COST, candidate, ranked_trials, repeated
from nas.errors import NothingFitsError
from search_spaces.arch import Arch

FINALISTS = "finalists"
"""The study's attribute with the costs of the candidates that were looked at again, by the number of the trial."""
_FEWEST_FINALISTS = 3
_SHOWN = {"latency_ms": "ms", "peak_ram_bytes": "bytes of RAM", "flash_bytes": "bytes of flash", "energy_mj": "mJ"}


def choose_winner(study: optuna.Study, cost: CandidateCost, budget: Budget, searched: Mapping[str, float]) -> Arch:
    """The most accurate candidate that keeps the budget when its costs are taken once more.

    ``searched`` are the limits that the search kept to, at most those of the budget. The costs of these finalists,
    three at least, are kept in the study under ``FINALISTS``.

    Raises:
        NothingFitsError: none does; the message names the limit that binds and what would be enough.
    """
    again: dict[int, Mapping[str, float]] = {}
    chosen: list[Arch] = []
    for trial in ranked_trials(study):
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


def why_nothing_fits(
    study: optuna.Study, budget: Budget, searched: Mapping[str, float], again: Mapping[int, Mapping[str, float]]
) -> str:
    """The limit that most candidates break, the smallest value found, and the smallest change of one limit that would
    work.

    ``again`` are the costs of evaluated trials that were taken once more, and then held against the budget itself.
    """
    asked = budget.limits()
    tried: list[tuple[Mapping[str, float], Mapping[str, float]]] = [
        (again[trial.number], asked) if trial.number in again else (trial.user_attrs[COST], searched)
        for trial in study.get_trials(deepcopy=False)
        if COST in trial.user_attrs and not repeated(trial)
    ]
    if not tried:
        return f"no candidate was tried ({_first_failure(study) or 'the time was too short'})"
    excess = [violations(costs, limits) for costs, limits in tried]
    if not asked or any(all(v <= 0 for v in e.values()) for e in excess):
        failed = _first_failure(study)
        why = f"the first failed with {failed}" if failed else "allow more time"
        return f"of {len(tried)} candidates some keep the budget, but none was evaluated to its end: {why}"
    binding = max(asked, key=lambda name: sum(e[name] > 0 for e in excess))
    margin = f" (the search kept to {searched[binding]:g})" if searched[binding] < asked[binding] else ""
    lines = [
        f"none of {len(tried)} candidates keeps the budget",
        f"the limit that binds is {binding}: at most {asked[binding]:g} {_SHOWN[binding]}{margin}, "
        f"the smallest met was {min(costs[binding] for costs, _ in tried):g}",
    ]
    single = [
        (value, name, asked[name] * (1 + value))
        for e in excess
        for name, value in e.items()
        if value > 0 and sum(v > 0 for v in e.values()) == 1
    ]
    if single:
        _, name, enough = min(single)
        lines.append(f"the smallest change of one limit that would work: {name} of {enough:g} {_SHOWN[name]}")
    return "; ".join(lines)


def _first_failure(study: optuna.Study) -> str | None:
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return next((str(t.user_attrs[CAUSE]) for t in failed if CAUSE in t.user_attrs), None)
