"""Whether the validation images tell candidates apart, and what follows where they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest

import nas
from hw_profiles.budget import Budget
from nas.engine.score import Score, agreement_of_halves
from nas.engine.winner_selection import choose_winner
from nas.samplers.gaussian_process import fit
from nas.samplers.observations import observations
from search_spaces.space import NETWORK, SEARCHED


def space(trial: Any) -> tuple[str, int]:
    network = trial.suggest_categorical(NETWORK, (SEARCHED, "known"))
    return network, trial.suggest_int("x", 0, 19) if network == SEARCHED else -1


def searched(noise: float, trials: int = 12) -> optuna.Study:
    def evaluate(candidate: tuple[str, int], fidelity: float) -> Score:
        value = 0.4 + 0.02 * candidate[1]
        halves = np.array([value, 0.78 - value if noise else value])  # the other half says the opposite
        return Score(float(halves.mean()), (float(halves[0]), float(halves[1])), 0.03)

    return nas.search(
        space, evaluate, cost=lambda candidate: {"size": 1.0}, n_trials=trials, sampler="random",
        warm_start=[{NETWORK: "known"}],
    )  # fmt: skip


def test_the_halves_stand_in_the_trials_and_agree_where_there_is_no_noise() -> None:
    study = searched(0)
    assert study.trials[0].user_attrs["halves"] == pytest.approx([0.38, 0.38])
    assert study.trials[0].value == pytest.approx(0.38)
    assert study.trials[0].user_attrs["standard_error"] == 0.03
    assert agreement_of_halves(study) == pytest.approx(1)
    assert agreement_of_halves(searched(0, trials=4)) is None


def test_where_the_order_is_chance_a_known_network_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    certain, chance = searched(0), searched(0.3)
    agreement = agreement_of_halves(chance)
    assert agreement is not None
    assert agreement < 0.2

    def cost(candidate: Any) -> dict[str, float]:
        return {"size": 1.0}

    assert choose_winner(certain, cost, Budget(), {}, tried_first=1) == max(
        map(tuple, map(candidate_of, certain.trials)), key=by_x
    )  # type: ignore[arg-type]
    assert "do not agree" not in caplog.text
    assert choose_winner(chance, cost, Budget(), {}, tried_first=1) == ("known", -1)  # type: ignore[arg-type]
    assert "ranking of 12 candidates is unreliable" in caplog.text


def candidate_of(trial: optuna.trial.FrozenTrial) -> tuple[str, int]:
    return space(optuna.trial.FixedTrial(trial.params))


def by_x(candidate: tuple[str, int]) -> int:
    return candidate[1]


def test_all_alike_says_nothing() -> None:
    study = optuna.create_study()
    for _ in range(8):
        study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"halves": [0.5, 0.5]}))
    assert agreement_of_halves(study) is None
    one = Score.of(np.array([True]))
    assert (one.accuracy, one.halves) == (1.0, (1.0, 1.0))
    assert one.standard_error > 0.4


def test_the_sampler_knows_what_share_of_the_differences_is_chance() -> None:
    study = optuna.create_study(direction="maximize")
    for x in range(8):
        study.add_trial(
            optuna.trial.create_trial(
                value=0.1 * x,
                params={"x": x},
                distributions={"x": optuna.distributions.IntDistribution(0, 9)},
                user_attrs={"accuracy_at_1": 0.1 * x, "standard_error": 0.1},
            )
        )
    assert observations(study.trials, study.directions).noise == pytest.approx(0.01 / np.var(0.1 * np.arange(8)))
    x = np.linspace(0, 1, 12)[:, None]
    values = np.sin(6 * x[:, 0])
    quiet, noisy = (fit(x, np.array([0]), values, np.zeros(1), noise).log_noise for noise in (0.0, 0.5))
    assert noisy > quiet + 1
