"""From a finished search to the one network that is worth training, or to the reason why there is none."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from hw_profiles.budget import Budget, violations
from nas.engine import COST, candidate, ranked_trials
from nas.errors import NothingFitsError
from nas.evaluate import CandidateCost
from search_spaces.arch import Arch

_SHOWN = {"latency_ms": "ms", "peak_ram_bytes": "bytes of RAM", "flash_bytes": "bytes of flash", "energy_mj": "mJ"}


def choose_winner(study: optuna.Study, cost: CandidateCost, budget: Budget) -> Arch:
    """The most accurate candidate that keeps the budget when its costs are taken once more.

    Raises:
        NothingFitsError: none does; the message names the limit that binds and what would be enough.
    """
    for trial in ranked_trials(study):
        arch: Arch = candidate(study, trial)
        excess = violations(cost(arch), budget.limits())
        if all(value <= 0 for value in excess.values()):
            return arch
    raise NothingFitsError(why_nothing_fits(study, budget))


def why_nothing_fits(study: optuna.Study, budget: Budget) -> str:
    """The limit that most candidates break, the smallest value met, and the smallest single relaxation that would
    do."""
    limits = budget.limits()
    tried = [trial.user_attrs[COST] for trial in study.get_trials(deepcopy=False) if COST in trial.user_attrs]
    if not tried:
        failed = [t.user_attrs.get("cause") for t in study.get_trials(deepcopy=False, states=(TrialState.FAIL,))]
        return f"no candidate was tried ({failed[0] if failed else 'the time was too short'})"
    excess = [violations(costs, limits) for costs in tried]
    if not limits or any(all(v <= 0 for v in e.values()) for e in excess):
        return f"of {len(tried)} candidates some keep the budget, but none was evaluated to its end: allow more time"
    binding = max(limits, key=lambda name: sum(e[name] > 0 for e in excess))
    lines = [
        f"none of {len(tried)} candidates keeps the budget",
        f"the limit that binds is {binding}: at most {limits[binding]:g} {_SHOWN[binding]}, "
        f"the smallest met was {min(costs[binding] for costs in tried):g}",
    ]
    single = [
        (value, name, costs[name])
        for costs, e in zip(tried, excess, strict=True)
        for name, value in e.items()
        if value > 0 and sum(v > 0 for v in e.values()) == 1
    ]
    if single:
        _, name, enough = min(single)
        lines.append(f"the smallest single relaxation that would do: {name} of {enough:g} {_SHOWN[name]}")
    return "; ".join(lines)
