"""The search for a plan: Optuna chooses the stages and their strength, each plan judged after a short recovery."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna

from nas.compression.strengths import STRENGTHS, Strength
from nas.samplers.seeded_by_number import SeededByNumber, seed_for

_CHANNELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_ZEROS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_CLUSTERS = (0, 128, 64, 32, 16, 8)
_RANDOM_PLANS = 4
_LOST, _EXCESS = "points_lost", "excess"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What a plan of a strength came to after a short recovery; ``excess``: how far the limit, or the size that was
    asked for, is missed that is missed most, as a share of it."""

    strength: Strength
    coded_bytes: int
    points_lost: float
    excess: float = 0.0


def searched_strengths(
    run: Callable[[Strength], Scored],
    *,
    allowed: float,
    trials: int,
    trains: bool,
    seed: int = 0,
    is_over: Callable[[], bool] = lambda: False,
) -> Sequence[Scored]:
    """The plans that were run, those first that keep ``allowed`` points and all limits, the smallest file first; then
    those that miss a limit, and last those that lose more, the least loss first.

    The ready strengths are tried first, as prior; then multivariate TPE (2304.11127) proposes, with the points lost and
    the limits as constraints. ``trains``: channels can be pruned. The same seed and results give the same proposals
    again, so that a search whose plans are found in their folders resumes. ``is_over`` ends it early.

    >>> def run(strength):
    ...     taken = (strength.channels or 0) + (strength.zeros or 0)
    ...     return Scored(strength=strength, coded_bytes=round(1000 * (2 - taken)), points_lost=2 * taken)
    >>> best = searched_strengths(run, allowed=1.0, trials=12, trains=True)[0]
    >>> best.points_lost <= 1.0, best.coded_bytes < 1800
    (True, True)
    """
    sampler = SeededByNumber(
        lambda number: optuna.samplers.TPESampler(
            seed=seed_for(seed, number), multivariate=True, n_startup_trials=_RANDOM_PLANS + len(STRENGTHS)
        )
    )
    study = optuna.create_study(sampler=sampler)
    for strength in STRENGTHS[1:]:
        study.enqueue_trial(_parameters(strength, trains=trains))
    known: dict[Strength, Scored] = {}
    for _ in range(trials):
        if known and is_over():
            break
        trial = study.ask()
        strength = _strength(trial, trains=trains)
        if strength not in known:
            known[strength] = run(strength)
        scored = known[strength]
        trial.set_constraint(_LOST, scored.points_lost - allowed)
        trial.set_constraint(_EXCESS, scored.excess)
        study.tell(trial, math.log(scored.coded_bytes))
    return sorted(
        known.values(),
        key=lambda each: (max(0.0, each.points_lost - allowed), each.excess, each.coded_bytes),
    )


def _strength(trial: optuna.Trial, *, trains: bool) -> Strength:
    channels = trial.suggest_categorical("channels", _CHANNELS) if trains else 0.0
    zeros = trial.suggest_categorical("zeros", _ZEROS)
    clusters = trial.suggest_categorical("clusters", _CLUSTERS)
    by_sensitivity = trial.suggest_categorical("by_sensitivity", (False, True)) if trains else False
    return Strength(
        channels=channels or None,
        zeros=zeros or None,
        clusters=clusters or None,
        int8=trial.suggest_categorical("int8", (True, False)),
        by_sensitivity=bool(by_sensitivity and zeros),
    )


def _parameters(strength: Strength, *, trains: bool) -> dict[str, float | int | bool]:
    """The nearest choices to a ready strength."""
    found: dict[str, float | int | bool] = {
        "zeros": _nearest(_ZEROS, strength.zeros), "clusters": strength.clusters or 0, "int8": strength.int8
    }  # fmt: skip
    if trains:
        found |= {"channels": _nearest(_CHANNELS, strength.channels), "by_sensitivity": False}
    return found


def _nearest(choices: Sequence[float], value: float | None) -> float:
    return min(choices, key=lambda each: abs(each - (value or 0.0)))
