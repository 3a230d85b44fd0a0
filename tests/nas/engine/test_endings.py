"""How a search ends, and what it says then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import nas
from nas.errors import UserFunctionError
from nas.execution.executor import EvaluationError
from nas.execution.in_process import InProcess
from nas.samplers.registry import SAMPLERS
from nas.samplers.trial_attributes import ENDED

Pair = tuple[int, int]


def space(trial: Any) -> Pair:
    return trial.suggest_int("x", 0, 9), trial.suggest_categorical("y", (1, 2, 3))


def cost(found: Pair) -> dict[str, float]:
    return {"size": 10 + found[0] * found[1], "latency_ms": 1 + found[0]}


def accuracy(found: Pair, fidelity: float) -> float:
    return (found[0] + found[1] / 4) / 10


def count(study: optuna.Study, state: TrialState) -> int:
    return len(study.get_trials(states=(state,)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_exhausted_space_ends_the_search(sampler: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fitnas"):
        study = nas.search(space, accuracy, cost=cost, budget={"size": 20}, n_trials=99, sampler=SAMPLERS[sampler])
    fitting = sum(cost((x, y))["size"] <= 20 for x in range(10) for y in (1, 2, 3))
    assert count(study, TrialState.COMPLETE) == fitting
    assert study.user_attrs[ENDED].startswith("the space is exhausted")
    assert [r.message for r in caplog.records] == [f"the search ended: {study.user_attrs[ENDED]}"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_where_nothing_fits_the_search_ends_with_the_reason(sampler: str) -> None:
    limits = {"size": 9, "latency_ms": 2.5}
    study = nas.search(space, accuracy, cost=cost, budget=limits, n_trials=5, sampler=SAMPLERS[sampler])
    assert count(study, TrialState.COMPLETE) == 0
    said = study.user_attrs[ENDED]
    assert said.startswith("nothing fits: ")
    assert "the binding limit is size (at most 9); the smallest value found was 10" in said
    assert "the smallest value found for latency was 1 ms (at most 2.5 ms)" in said
    assert said.endswith("the smallest change of one limit that would work: size at most 10")


def test_a_rare_candidate_that_fits_is_found_without_hundreds_of_trials() -> None:
    """One of 4 ** 8 keeps the limit; what comes closer to it is followed."""

    def wide(trial: Any) -> tuple[int, ...]:
        return tuple(trial.suggest_categorical(f"c{i}", (1, 2, 3, 4)) for i in range(8))

    study = nas.search(
        wide, lambda found, f: 0.5, cost=lambda found: {"size": sum(found)}, budget={"size": 8}, n_trials=3,
        sampler=SAMPLERS["random"],
    )  # fmt: skip
    assert nas.winner(study) == (1,) * 8
    assert len(study.trials) < 60


def test_a_search_where_most_evaluations_fail_ends_with_the_cause() -> None:
    def broken(found: Pair, fidelity: float) -> float:
        raise RuntimeError("no such kernel")

    with pytest.raises(
        UserFunctionError, match=r"evaluate failed for every candidate .10 tried.* RuntimeError: no such kernel"
    ) as caught:
        nas.search(space, broken, cost=cost, n_trials=30)
    study = caught.value.study
    assert study is not None
    assert count(study, TrialState.FAIL) == 10
    assert study.user_attrs[ENDED] == "10 of 10 evaluations failed, the last with: RuntimeError: no such kernel"


def test_a_search_where_half_of_the_evaluations_fail_goes_on() -> None:
    def half(found: Pair, fidelity: float) -> float:
        if found[0] % 2:
            raise RuntimeError("odd")
        return 0.5

    study = nas.search(space, half, cost=cost, n_trials=24, sampler=SAMPLERS["random"])
    assert count(study, TrialState.FAIL) + count(study, TrialState.COMPLETE) == 24
    assert study.user_attrs[ENDED] == "all requested candidates were evaluated"


class WithAlternative:
    """Fails on odd candidates, where the alternative goes well on some."""

    def __init__(self, works: Callable[[Pair], bool]) -> None:
        self.asked: list[tuple[str, Pair, float]] = []
        self.works = works

    def __call__(self, found: Pair, fidelity: float) -> float:
        self.asked.append(("usual", found, fidelity))
        if found[0] % 2:
            raise RuntimeError("odd")
        return 0.1

    def alternative(self, found: Pair, fidelity: float) -> float:
        self.asked.append(("alternative", found, fidelity))
        if not self.works(found):
            raise RuntimeError("odd here too")
        return 0.2


def test_what_fails_is_tried_once_more_in_the_alternative_and_counts_once() -> None:
    evaluate = WithAlternative(lambda found: found[0] != 3)
    study = nas.search(space, evaluate, cost=cost, n_trials=20, rungs=(0.5, 1), sampler=SAMPLERS["random"])
    evaluated = [t for t in study.trials if "evaluation_started" in t.user_attrs]
    assert len(evaluated) == 20
    for trial in evaluated:
        asked = [
            (how, fidelity)
            for how, found, fidelity in evaluate.asked
            if found == (trial.params["x"], trial.params["y"])
        ]
        if trial.params["x"] == 3:
            assert asked == [("usual", 0.5), ("alternative", 0.5)]
            assert trial.state == TrialState.FAIL
            assert trial.user_attrs["cause"] == "RuntimeError: odd here too"
        elif trial.params["x"] % 2:
            assert asked[:2] == [("usual", 0.5), ("alternative", 0.5)]
            assert set(asked[2:]) <= {("alternative", 1.0)}
            assert trial.user_attrs["retried_after"] == "RuntimeError: odd"
        else:
            assert {how for how, _ in asked} == {"usual"}


class Refuses:
    """An executor whose evaluations fail in a way that no other format can help."""

    workers = 1

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def submit(
        self, candidate: Any, fidelity: float, *, alternative: bool = False, seconds: float | None = None
    ) -> Future[Any]:
        self.asked.append(alternative)
        future: Future[Any] = Future()
        future.set_exception(EvaluationError("took longer than the limit of 1 s"))
        return future

    def close(self) -> None:
        self.asked.append(True)


def test_what_a_retry_cannot_help_is_not_tried_again() -> None:
    executor = Refuses()
    with pytest.raises(UserFunctionError, match="took longer than the limit of 1 s") as caught:
        nas.search(space, WithAlternative(bool), cost=cost, n_trials=2, executor=executor)
    study = caught.value.study
    assert study is not None
    assert executor.asked == [False, False, True]  # closed at the end
    assert [trial.user_attrs["cause"] for trial in study.trials] == ["took longer than the limit of 1 s"] * 2


@pytest.mark.slow
def test_a_candidate_whose_process_dies_again_and_again_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.engine.search_loop._MOST_ATTEMPTS", 3)
    where: dict[str, Any] = {"storage": tmp_path / "s.db", "study_name": "s", "cost": cost, "seed": 1}
    asked: list[Pair] = []

    def dies(found: Pair, fidelity: float) -> float:
        asked.append(found)
        if found == asked[0]:
            raise KeyboardInterrupt  # as if the process were gone: the trial stays unfinished
        return 0.5

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            nas.search(space, dies, n_trials=3, **where)
    study = nas.search(space, dies, n_trials=3, **where)
    assert asked[:3] == [asked[0]] * 3
    assert len(asked) == 5
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].user_attrs["cause"] == "the process ended 3 times during its evaluation"


def test_a_repaired_evaluation_goes_on_where_a_broken_one_ended(tmp_path: Path) -> None:
    def broken(found: Pair, fidelity: float) -> float:
        raise RuntimeError("wrong path")

    where: dict[str, Any] = {"cost": cost, "storage": tmp_path / "s.db"}
    with pytest.raises(UserFunctionError, match=r"evaluate failed for every candidate .10 tried"):
        nas.search(space, broken, n_trials=20, **where)
    study = nas.search(space, accuracy, n_trials=20, **where)
    assert count(study, TrialState.COMPLETE) == 10
    assert study.user_attrs[ENDED] == "all requested candidates were evaluated"


def test_where_all_of_few_evaluations_fail_the_reason_is_told() -> None:
    def broken(found: Pair, fidelity: float) -> float:
        raise RuntimeError("wrong path")

    with pytest.raises(
        UserFunctionError, match=r"every candidate .3 tried., the last with RuntimeError: wrong path"
    ) as caught:
        nas.search(space, broken, cost=cost, n_trials=3)
    assert caught.value.study is not None
    assert caught.value.study.user_attrs[ENDED] == "all 3 evaluations failed, the last with: RuntimeError: wrong path"


def test_a_wrong_value_is_tried_in_the_alternative_too() -> None:
    class Overflows:
        def __call__(self, found: Pair, fidelity: float) -> float:
            return float("nan")

        def alternative(self, found: Pair, fidelity: float) -> float:
            return 0.5

    study = nas.search(space, Overflows(), cost=cost, n_trials=2)
    assert count(study, TrialState.COMPLETE) == 2
    assert "accuracy between 0 and 1, got nan" in study.trials[0].user_attrs["retried_after"]


class Records(InProcess):
    """Remembers the limits of time that it was given."""

    def __init__(self) -> None:
        super().__init__(accuracy)
        self.limits: list[tuple[float, float | None]] = []

    def submit(
        self, candidate: Any, fidelity: float, *, alternative: bool = False, seconds: float | None = None
    ) -> Future[Any]:
        self.limits.append((fidelity, seconds))
        time.sleep(0.1 * fidelity)
        return super().submit(candidate, fidelity)


def test_the_limit_of_an_evaluation_follows_the_longest_so_far_and_the_fidelity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nas.engine.search_loop._SHORTEST_LIMIT", 0.01)
    executor = Records()
    nas.search(space, accuracy, cost=cost, n_trials=8, rungs=(0.5, 1), executor=executor)
    assert [limit for _, limit in executor.limits[:3]] == [3600] * 3
    for fidelity, limit in executor.limits[3:]:
        assert limit is not None
        assert fidelity <= limit < 3600  # ten times 0.1 s, for each part of it
    assert {limit for _, limit in executor.limits[3:]} != {3600}
