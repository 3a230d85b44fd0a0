"""Which trials go on after a rung."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import TrialState

import nas
from nas.engine.successive_halving import crowding_distances, front_ranks, promising, surely_dominated
from nas.samplers.registry import SAMPLERS


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_front_ranks_are_those_of_optuna(objectives: int) -> None:
    points = np.random.default_rng(0).integers(0, 6, (40, objectives)).astype(float)
    assert front_ranks(points).tolist() == _fast_non_domination_rank(points).tolist()


def test_one_objective_is_the_best_third() -> None:
    others = [[value] for value in range(8)]
    going_on = [value for value in range(8) if promising([value - 0.5], others)]
    assert going_on == [0, 1, 2]  # of nine


def test_several_objectives_go_on_by_fronts_then_by_distance_to_neighbors() -> None:
    front = [[0.0, 9.0], [4.9, 4.1], [5.0, 4.0], [5.1, 3.9], [9.0, 0.0]]
    behind = [[9.0, 9.0]] * 4
    assert promising([2.0, 6.0], front + behind)
    assert not promising([9.0, 8.0], front + behind)
    assert not promising([5.05, 3.95], front + behind)  # in the front, but among many


def test_distances_are_largest_at_the_ends_and_grow_with_the_gap() -> None:
    distances = crowding_distances(np.array([[0.0, 9.0], [1.0, 8.0], [2.0, 1.0], [9.0, 0.0]]))
    assert np.isinf(distances[[0, 3]]).all()
    assert distances[2] > distances[1]


def test_a_search_of_two_objectives_stops_candidates_early_and_keeps_the_front() -> None:
    """A third of the epochs of full trainings, as large a hypervolume."""
    spent = {"stopped": 0.0, "whole": 0.0}

    def space(trial: optuna.Trial) -> tuple[int, ...]:
        return tuple(trial.suggest_categorical(f"c{i}", (0, 1, 2)) for i in range(6))

    def accuracy(found: tuple[int, ...]) -> float:
        return (sum(found) - 0.5 * (found[0] != found[1]) - 2 * found[5]) / 20 + 0.2

    def cost(found: tuple[int, ...]) -> dict[str, float]:
        return {"size": 1 + 2 * found[0] + found[1] + 3 * found[2] + found[3] * found[4]}

    def run(kind: str, rungs: tuple[float, ...]) -> optuna.Study:
        def evaluate(found: tuple[int, ...], fidelity: float) -> float:
            spent[kind] += fidelity
            return accuracy(found) * (0.7 + 0.3 * fidelity)

        return nas.search(
            space, evaluate, cost=cost, objectives=("accuracy", "size"), n_trials=90, rungs=rungs,
            sampler=SAMPLERS["random"], seed=3,
        )  # fmt: skip

    def hypervolume(study: optuna.Study) -> float:
        complete = study.get_trials(states=(TrialState.COMPLETE,))
        points = sorted((-t.values[0], t.values[1]) for t in complete)
        covered, height = 0.0, 20.0
        for loss, size in points:
            covered += (0 - loss) * max(0.0, height - size)
            height = min(height, size)
        return covered

    stopped, whole = run("stopped", (0.1, 1.0)), run("whole", (1.0,))
    assert spent["stopped"] < 0.55 * spent["whole"]
    assert hypervolume(stopped) > 0.97 * hypervolume(whole)
    at_rung = [t for t in stopped.trials if "accuracy_at_0.1" in t.user_attrs]
    assert len(at_rung) == 90
    assert any(t.state == TrialState.PRUNED for t in at_rung)


def test_equal_trials_do_not_stop_each_other() -> None:
    for losses in ([1.0], [1.0, 1.0]):
        assert all(promising(losses, [losses] * others) for others in range(6))


ENDED = [[-0.5 - 0.01 * i, 10.0 + i] for i in range(6)]  # losses at a rung: -accuracy and a cost
GAINS = (0.19, 0.2, 0.21, 0.19, 0.2, 0.21)
ENDS = [[loss - gain, cost] for (loss, cost), gain in zip(ENDED, GAINS, strict=True)]


def test_one_that_would_end_behind_another_by_more_than_the_error_is_dominated() -> None:
    best, cost = ENDS[2]  # at the rung 0.52, in the end 0.73
    assert surely_dominated([best + 0.2 + 0.015, cost + 0.5], ENDED, ENDS)
    assert not surely_dominated([best + 0.2 + 0.005, cost + 0.5], ENDED, ENDS)  # within the error
    assert not surely_dominated([-0.1, 9.5], ENDED, ENDS)  # none costs as little


def test_few_ends_and_one_objective_predict_nothing() -> None:
    hopeless = [-0.1, 20.0]
    assert surely_dominated(hopeless, ENDED, ENDS)
    assert not surely_dominated(hopeless, ENDED[:5], ENDS[:5])
    assert not surely_dominated(hopeless[:1], [losses[:1] for losses in ENDED], [losses[:1] for losses in ENDS])


@pytest.mark.parametrize(("objectives", "stopped"), [(("accuracy", "size"), [6, 7, 8, 9]), (("accuracy",), [])])
def test_a_search_stops_what_would_most_likely_end_dominated(objectives: tuple[str, ...], stopped: list[int]) -> None:
    """Each is the best and the costliest so far at the rung, so its rank is no reason; the first ends far above all."""

    def evaluate(found: int, fidelity: float) -> float:
        gain = 0.1 if found else 0.6
        return 0.3 + 0.01 * found + gain * (fidelity == 1)

    study = nas.search(
        lambda trial: trial.suggest_int("found", 0, 9), evaluate, cost=lambda found: {"size": 1.0 + found},
        objectives=objectives, n_trials=10, rungs=(0.1, 1.0), seed=0, sampler=SAMPLERS["random"],
        warm_start=[{"found": found} for found in range(10)],
    )  # fmt: skip
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert [trial.params["found"] for trial in pruned] == stopped
    assert all("likely to be dominated by another one" in trial.user_attrs["why"] for trial in pruned)
