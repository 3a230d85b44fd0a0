"""Workers that share a study are killed again and again: no trial lost, none counted twice, the planned number reached."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from nas.storages.open_storage import open_storage
from tests.postgres import Postgres, postgres_server

pytestmark = pytest.mark.faults

N_TRIALS, KILLS, WORKERS = 60, 8, 2


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["postgresql", "journal", "sqlite"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres").new_database("killed"))
    return str(tmp_path / ("study.journal" if request.param == "journal" else "study.db"))


class _Workers:
    def __init__(self, address: str, notes: Path) -> None:
        self.address, self.notes = address, notes
        self.running = [self.start() for _ in range(WORKERS)]

    def start(self) -> subprocess.Popen[str]:
        script = Path(__file__).with_name("shared_worker.py")
        return subprocess.Popen(
            [sys.executable, str(script), self.address, str(N_TRIALS), str(self.notes)],
            env={**os.environ, "PYTHONPATH": str(Path.cwd())}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def noted(self) -> int:
        return self.notes.read_text().count("\n") if self.notes.exists() else 0

    def wait_for_note(self, since: int) -> None:
        deadline = time.monotonic() + 120
        while self.noted() <= since and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.noted() > since

    def finish(self) -> None:
        for worker in self.running:
            _, errors = worker.communicate(timeout=300)
            assert worker.returncode == 0, errors


def _trials(address: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name="search", storage=open_storage(address)).trials


def _check_counts(address: str) -> None:
    trials = _trials(address)
    assert [trial.number for trial in trials] == [*range(len(trials))]
    started = [trial for trial in trials if trial.user_attrs.get("evaluation_started")]
    assert len(started) == N_TRIALS
    assert [
        (t.number, t.state.name, t.user_attrs.get("cause")) for t in started if t.state != TrialState.COMPLETE
    ] == []
    assert all(trial.state.is_finished() for trial in trials)
    assert max(Counter(tuple(trial.params.values()) for trial in started).values()) == 1


def test_workers_killed_eight_times_lose_and_double_nothing(address: str, tmp_path: Path) -> None:
    workers = _Workers(address, tmp_path / "notes")
    chance = random.Random(0)
    for _ in range(KILLS):
        workers.wait_for_note(workers.noted() + 3)  # one has begun an evaluation
        time.sleep(chance.uniform(0, 0.15))
        victim = chance.randrange(WORKERS)
        workers.running[victim].kill()
        workers.running[victim].communicate()
        workers.running[victim] = workers.start()
    workers.finish()
    _check_counts(address)


def test_workers_wait_while_postgresql_is_stopped_for_20_seconds(postgres: Postgres, tmp_path: Path) -> None:
    address = postgres.new_database("stopped")
    workers = _Workers(address, tmp_path / "notes")
    workers.wait_for_note(10)
    postgres.stop()
    time.sleep(20)
    postgres.start()
    workers.finish()
    _check_counts(address)
