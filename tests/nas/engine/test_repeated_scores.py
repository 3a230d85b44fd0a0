"""The best candidates are scored again where the validation images do not tell them apart."""

from __future__ import annotations

import time
from typing import Any

import optuna
import pytest

import nas
from hw_profiles.budget import Budget
from nas.engine.repeated_scores import leading_trials, repeat_scores
from nas.engine.score import Score
from nas.engine.winner_selection import choose_winner
from nas.execution.in_process import InProcess

FIRST = {0: 0.50, 1: 0.80, 2: 0.85, 3: 0.84, 4: 0.83}
TRUE = {0: 0.99, 1: 0.80, 2: 0.70, 3: 0.82, 4: 0.81}


def searched(error: float = 0.02) -> optuna.Study:
    return nas.search(
        lambda trial: trial.suggest_int("x", 0, 4),
        lambda x, fidelity: Score(FIRST[x], (FIRST[x], FIRST[x]), error),
        cost=cost,
        n_trials=5,
    )


def cost(candidate: Any) -> dict[str, float]:
    return {"size": 1.0}


def chosen(study: optuna.Study) -> Any:
    return choose_winner(study, cost, Budget(), {})  # type: ignore[arg-type]


def numbers(study: optuna.Study) -> dict[int, str]:
    return {trial.params["x"]: str(trial.number) for trial in study.trials if trial.values}


def test_the_best_by_all_scores_wins_and_others_are_not_scored_again() -> None:
    study, asked = searched(), []

    def again(pair: tuple[int, int], fidelity: float) -> float:
        asked.append(pair)
        return TRUE[pair[0]]

    assert chosen(study) == 2
    repeat_scores(study, InProcess(again), 60)
    assert sorted(asked) == [(x, number) for x in (2, 3, 4) for number in (1, 2, 3)]
    assert study.user_attrs["repeated_scores"] == {numbers(study)[x]: [TRUE[x]] * 3 for x in (2, 3, 4)}
    assert chosen(study) == 3
    repeat_scores(study, InProcess(again), 60)  # all was done
    assert len(asked) == 9


def test_what_was_interrupted_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    study, asked = searched(), []
    study.set_user_attr("repeated_scores", {numbers(study)[x]: [TRUE[x]] for x in (2, 3, 4)})
    repeat_scores(study, InProcess(lambda pair, fidelity: asked.append(pair) or TRUE[pair[0]]), 60)
    assert sorted(number for _, number in asked) == [2, 2, 2, 3, 3, 3]


def test_one_that_fails_leaves_the_comparison() -> None:
    study = searched()

    def again(pair: tuple[int, int], fidelity: float) -> float:
        if pair == (3, 2):
            raise ValueError("unlucky")
        return TRUE[pair[0]]

    repeat_scores(study, InProcess(again), 60)
    assert len(study.user_attrs["repeated_scores"][numbers(study)[3]]) == 1
    assert chosen(study) == 4


def test_certain_scores_are_not_repeated() -> None:
    assert len(leading_trials(searched(0.001))) == 1
    assert len(leading_trials(searched(0.3))) == 4  # at most
    study = searched(0.001)
    repeat_scores(study, InProcess(lambda pair, fidelity: 1.0), 60)
    assert "repeated_scores" not in study.user_attrs
    assert chosen(study) == 2


def test_a_round_that_would_not_end_in_time_is_not_begun() -> None:
    study, asked = searched(), []

    def again(pair: tuple[int, int], fidelity: float) -> float:
        asked.append(pair)
        time.sleep(0.1)
        return TRUE[pair[0]]

    repeat_scores(study, InProcess(again), 0.45)
    assert len(asked) == 3


def test_not_even_the_first_round_is_begun_where_it_would_take_too_long() -> None:
    study = searched()
    repeat_scores(study, InProcess(lambda pair, fidelity: TRUE[pair[0]]), 60, each=25)  # three times
    assert "repeated_scores" not in study.user_attrs
    repeat_scores(study, InProcess(lambda pair, fidelity: TRUE[pair[0]]), 60, each=15)
    assert study.user_attrs["repeated_scores"]
