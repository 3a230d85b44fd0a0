"""Every sampler by name, in the search."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import TrialState

import nas
from nas.samplers.problem import Problem, UsesProblem
from nas.samplers.registry import SAMPLERS, sampler_named

Code = tuple[int, ...]


def space(trial: Any) -> Code:
    return tuple(trial.suggest_categorical(f"width{i}", (8, 16, 24)) for i in range(4))


def cost(found: Code) -> dict[str, float]:
    return {"size": float(sum(found))}


def evaluate(found: Code, fidelity: float) -> float:
    return sum(found) / 100 - 0.002 * abs(found[0] - 16)


@pytest.mark.parametrize("knows_the_problem", [False, True])
@pytest.mark.parametrize("objectives", [("accuracy",), ("accuracy", "size")])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_finds_good_candidates_within_the_budget(
    name: str, objectives: tuple[str, ...], knows_the_problem: bool
) -> None:
    problem = Problem(space=space, cost=cost, limits={"size": 64.0}, objectives=objectives)

    def factory(seed: int) -> Any:
        sampler = sampler_named(name)(seed)
        return sampler.with_problem(problem) if knows_the_problem and isinstance(sampler, UsesProblem) else sampler

    study = nas.search(
        space, evaluate, cost=cost, budget={"size": 64}, objectives=objectives, n_trials=25, sampler=factory
    )
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    assert len(complete) == 25
    assert all(trial.values[1] <= 64 for trial in complete if len(objectives) > 1)
    assert len({tuple(trial.params.values()) for trial in complete}) == 25
    best = nas.winner(study)
    assert best is not None
    assert sum(best) <= 64
    assert evaluate(best, 1) >= 0.6
