"""The winner of a finished search, or what is said where there is none."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest

import nas
from hw_profiles import Budget
from nas.engine.winner_selection import choose_winner
from nas.errors import NothingFitsError

Costs = Callable[[int], dict[str, float]]


def latency(scale: float) -> Costs:
    return lambda x: {"latency_ms": scale * (1 + x / 100), "flash_bytes": 1000.0}


def study_of(cost: Costs, limit: float) -> optuna.Study:
    """Candidates 0 to 3, the larger ones more accurate and slower."""
    return nas.search(
        lambda trial: trial.suggest_int("x", 0, 3), lambda x, fidelity: x / 10, cost=cost, budget={"latency_ms": limit},
        n_trials=4,
    )  # fmt: skip


def test_the_most_accurate_that_keeps_the_budget_again_is_chosen() -> None:
    study = study_of(latency(1.0), 1.1)
    assert choose_winner(study, latency(1.0), Budget(latency_ms=1.1), {"latency_ms": 1.1}) == 3
    assert choose_winner(study, latency(1.0), Budget(latency_ms=1.015), {"latency_ms": 1.015}) == 1


def test_what_is_between_the_margin_and_the_limit_is_not_said_to_fit() -> None:
    study = study_of(latency(0.98), 0.97)
    with pytest.raises(NothingFitsError) as found:
        choose_winner(study, latency(0.98), Budget(latency_ms=1.0), {"latency_ms": 0.97})
    said = str(found.value)
    assert "the binding limit is latency (at most 1 ms, 0.97 ms with the safety margin of the search)" in said
    assert "the smallest value found was 0.98 ms" in said
    assert f"would work: latency at most {0.98 / 0.97:g} ms" in said


def test_candidates_that_break_the_budget_when_measured_again_are_told_with_that_value() -> None:
    study = study_of(latency(0.9), 0.97)
    with pytest.raises(
        NothingFitsError, match=r"binding limit is latency \(at most 1 ms.*the smallest value found was 1.1 ms;"
    ) as found:
        choose_winner(study, latency(1.1), Budget(latency_ms=1.0), {"latency_ms": 0.97})
    assert str(found.value).startswith("4 candidates were checked")
