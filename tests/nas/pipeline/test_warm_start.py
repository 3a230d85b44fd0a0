"""Candidates of an earlier study are proposed first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nas
from nas.config import Config
from nas.errors import InputError
from nas.pipeline.warm_start import best_of_earlier_run


def space(trial: Any) -> tuple[int, str]:
    return trial.suggest_int("x", 0, 99), trial.suggest_categorical("kind", ("a", "b"))


def accuracy(found: tuple[int, str], fidelity: float) -> float:
    return found[0] / 100


def cost(found: tuple[int, str]) -> dict[str, float]:
    return {"latency_ms": 1.0 + found[0]}


def test_they_come_first_and_keep_the_limits(tmp_path: Path) -> None:
    first = [{"x": 90, "kind": "a"}, {"x": 70, "kind": "b"}, {"x": 70, "kind": "no longer there"}, {"x": 200}]
    where: dict[str, Any] = {"storage": tmp_path / "s.db", "study_name": "s", "cost": cost, "warm_start": first}
    nas.search(space, accuracy, n_trials=1, budget={"latency_ms": 80}, **where)
    study = nas.search(space, accuracy, n_trials=6, budget={"latency_ms": 80}, **where)
    assert [trial.params["x"] for trial in study.trials[:3]] == [90, 70, 70]
    assert study.trials[0].user_attrs["why"].startswith("exceeds the budget")
    assert study.trials[1].params == {"x": 70, "kind": "b"}
    assert study.trials[2].params["kind"] in {"a", "b"}
    assert 0 <= study.trials[3].params["x"] <= 99
    whole = nas.search(space, accuracy, n_trials=6, budget={"latency_ms": 80}, cost=cost, warm_start=first)
    assert [trial.params for trial in study.trials] == [trial.params for trial in whole.trials]


def test_the_best_of_a_run_are_read_from_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text(Config(space="tiny", trials=8).to_toml())
    study = nas.search(space, accuracy, cost=cost, n_trials=8, storage=run / "study.db", study_name="search")
    best = best_of_earlier_run(Config(space="tiny", warm_start=str(run)))
    assert best[0] == max(study.trials, key=lambda trial: trial.values[0]).params
    assert len(best) == 5
    assert best_of_earlier_run(Config()) == []
    with pytest.raises(InputError, match="the run used the space 'tiny', expected 'mobilenet'"):
        best_of_earlier_run(Config(warm_start=str(run)))
    with pytest.raises(InputError, match=r"must be a run folder that contains study\.db"):
        best_of_earlier_run(Config(warm_start=str(tmp_path)))
