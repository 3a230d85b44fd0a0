"""Which trials go on after a rung."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import TrialState

import nas
from nas.engine.successive_halving import crowding_distances, front_ranks, promising
from nas.samplers.registry import SAMPLERS


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_front_ranks_are_those_of_optuna(objectives: int) -> None:
    points = np.random.default_rng(0).integers(0, 6, (40, objectives)).astype(float)
    assert front_ranks(points).tolist() == _fast_non_domination_rank(points).tolist()


def test_one_objective_is_the_best_third() -> None:
    others = [[value] for value in range(8)]
    going_on = [value for value in range(8) if promising([value - 0.5], others)]
    assert going_on == [0, 1, 2]  # of nine


def test_several_objectives_go_on_by_fronts_then_by_distance_to_neighbours() -> None:
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
