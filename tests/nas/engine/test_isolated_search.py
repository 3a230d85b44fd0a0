"""No candidate ends a search: what it does, it does to a process of its own."""

from __future__ import annotations

import pytest
from optuna.trial import TrialState

import nas
from nas.errors import UserFunctionError
from nas.execution.worker_processes import WorkerProcesses
from nas.samplers.registry import SAMPLERS
from tests.nas.engine.isolated_candidates import HARM, cost, evaluate, space


@pytest.mark.slow
def test_whatever_a_candidate_does_the_search_goes_on_and_tells() -> None:
    executor = WorkerProcesses(evaluate, 2, memory_bytes=1_200_000_000, seconds=4)
    study = nas.search(
        space, evaluate, cost=cost, n_trials=2 * len(HARM), executor=executor, sampler=SAMPLERS["random"]
    )
    told = {trial.params["harm"]: trial for trial in study.trials if "evaluation_started" in trial.user_attrs}
    assert set(told) == set(HARM)
    causes = {harm: trial.user_attrs.get("cause") for harm, trial in told.items()}
    assert "signal 6" in causes["abort"]
    assert causes["memory"].startswith("out of memory (limit 1.2 GB)")
    assert causes["sleep"] == "took longer than the limit of 4 s"
    assert causes["nan"] == "InputError: evaluate must return an accuracy between 0 and 1, got nan"
    assert causes["raise"] == "RuntimeError: no such kernel"
    assert told["none"].state == TrialState.COMPLETE
    assert nas.winner(study) in {(harm, 1) for harm in ("none", "no", "not any")}


def test_isolated_by_an_argument() -> None:
    study = None
    try:
        study = nas.search(space, evaluate, cost=cost, n_trials=2, isolated=True, evaluation_timeout=1, seed=1)
    except UserFunctionError as error:  # on a busy machine both take longer
        study = error.study
    assert study is not None
    assert sum(trial.state.is_finished() for trial in study.trials) >= 2
