"""Signs of life: what a worker that was killed held is taken over, by one other worker, and told once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from nas.storages.lease import ALIVE, TAKEN_OVER, WORKER, Lease, LeaseWatch, is_gone, new_worker, still_held, take_over
from nas.storages.open_storage import open_storage

SECONDS = 1.5
_ELSEWHERE = "elsewhere:1:1:token"


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres").new_database("lease"))
    return str(tmp_path / ("study.db" if request.param == "sqlite" else "study.journal"))


@pytest.fixture
def study(address: str) -> optuna.Study:
    return optuna.create_study(storage=open_storage(address), study_name="search")


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def _start(processes: list[subprocess.Popen[str]], address: str, worker: str) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("lease_process.py")
    process = subprocess.Popen(
        [sys.executable, str(script), address, worker, str(SECONDS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("holds")
    return process


def _ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("tell\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def _wait_until_lapsed(study: optuna.Study, watch: LeaseWatch, seconds: float) -> tuple[list[Any], float]:
    began = time.monotonic()
    lapsed: list[Any] = []
    while not lapsed and time.monotonic() < began + seconds:
        time.sleep(SECONDS / 6)
        lapsed = watch.lapsed(study.get_trials(deepcopy=False))
    return lapsed, time.monotonic() - began


@pytest.mark.slow
def test_a_trial_of_a_living_worker_does_not_lapse_and_one_of_a_killed_one_does(
    study: optuna.Study, address: str, processes: list[subprocess.Popen[str]]
) -> None:
    process = _start(processes, address, _ELSEWHERE)
    watch = LeaseWatch(SECONDS)
    assert _wait_until_lapsed(study, watch, 2 * SECONDS)[0] == []
    process.kill()
    lapsed, waited = _wait_until_lapsed(study, watch, 10 * SECONDS)
    assert [trial.number for trial in lapsed] == [0]
    assert waited > SECONDS / 2
    with Lease(study._storage, seconds=SECONDS) as lease:
        assert take_over(study._storage, lapsed[0], lease.worker, settle=0.1)
        lease.hold(lapsed[0]._trial_id)
        assert watch.lapsed(study.trials) == []
        assert lease.still_held(lapsed[0]._trial_id)
    assert study.trials[0].user_attrs[TAKEN_OVER] == 1


def test_a_worker_that_was_stopped_finds_that_it_lost_its_trial_and_leaves_it_alone(
    study: optuna.Study, address: str, processes: list[subprocess.Popen[str]]
) -> None:
    process = _start(processes, address, _ELSEWHERE)
    process.send_signal(signal.SIGSTOP)
    lapsed, _ = _wait_until_lapsed(study, LeaseWatch(SECONDS), 10 * SECONDS)
    assert len(lapsed) == 1
    with Lease(study._storage, seconds=SECONDS) as lease:
        assert take_over(study._storage, lapsed[0], lease.worker, settle=0.1)
        lease.hold(lapsed[0]._trial_id)
        process.send_signal(signal.SIGCONT)
        assert _ask(process) == "lost"
        assert study.trials[0].state == TrialState.RUNNING
        study.tell(0, 0.5)
        assert _ask(process) == "lost"
    assert [trial.value for trial in study.trials] == [0.5]


def test_a_worker_that_is_not_disturbed_tells_its_result(
    study: optuna.Study, address: str, processes: list[subprocess.Popen[str]]
) -> None:
    process = _start(processes, address, "HERE")
    watch = LeaseWatch(SECONDS)
    assert watch.lapsed(study.trials) == []
    assert _ask(process) == "told"
    assert watch.lapsed(study.trials) == []
    assert study.best_value == 1.0


def test_of_a_process_of_this_machine_that_is_gone_the_trial_lapses_at_once(
    study: optuna.Study, address: str, processes: list[subprocess.Popen[str]]
) -> None:
    process = _start(processes, address, "HERE")
    process.kill()
    for _ in range(100):  # it counts as gone before anybody has waited for it
        if is_gone(study.trials[0].user_attrs[WORKER]):
            break
        time.sleep(0.05)
    assert [trial.number for trial in LeaseWatch().lapsed(study.trials)] == [0]


def test_of_workers_that_take_over_at_once_one_wins(study: optuna.Study, address: str) -> None:
    study.ask()
    lapsed = study.trials[0]
    start = threading.Barrier(3)
    won: list[bool] = []

    def take() -> None:
        storage = open_storage(address)
        assert storage is not None
        start.wait()
        won.append(take_over(storage, lapsed, new_worker()))

    takers = [threading.Thread(target=take) for _ in range(3)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    assert sorted(won) == [False, False, True]


def test_what_was_finished_or_taken_meanwhile_is_not_taken_over() -> None:
    study = optuna.create_study()
    first, second = study.ask(), study.ask()
    seen = study.trials
    study.tell(first, 1.0)
    second.set_user_attr(WORKER, "another")
    assert not take_over(study._storage, seen[0], new_worker(), settle=0)
    assert not take_over(study._storage, seen[1], new_worker(), settle=0)
    assert not still_held(study._storage, second._trial_id, new_worker())


def test_silence_counts_from_the_first_look_and_not_while_nobody_could_look() -> None:
    now = 0.0
    study = optuna.create_study()
    trial = study.ask()
    trial.set_user_attr(WORKER, _ELSEWHERE)
    watch = LeaseWatch(30, clock=lambda: now)
    for now in (1000.0, 1009.0, 1018.0, 1027.0):  # noqa: B007
        assert watch.lapsed(study.trials) == []
    now = 1031.0
    assert len(watch.lapsed(study.trials)) == 1
    study._storage.set_trial_system_attr(trial._trial_id, ALIVE, f"{_ELSEWHERE} 7")
    assert watch.lapsed(study.trials) == []
    now = 5000.0  # the storage was down, or this process stopped
    assert watch.lapsed(study.trials) == []
    study._storage.set_trial_system_attr(trial._trial_id, ALIVE, "another:1:1:token 9")  # held it before
    for now in (5009.0, 5018.0):  # noqa: B007
        watch.lapsed(study.trials)
    now = 5027.0
    assert len(watch.lapsed(study.trials)) == 1


def test_a_storage_that_fails_does_not_end_the_signs_of_life() -> None:
    study = optuna.create_study()
    trial = study.ask()
    beats = []
    with Lease(study._storage, seconds=0.3, on_beat=lambda: beats.append(1 / 0)) as lease:
        lease.hold(trial._trial_id)
        before = study.trials[0].system_attrs[ALIVE]
        time.sleep(0.5)
        assert study.trials[0].system_attrs[ALIVE] != before


def test_a_number_that_another_process_got_later_is_not_taken_for_the_worker() -> None:
    worker = new_worker()
    machine, pid, began, token = worker.split(":")
    assert not is_gone(worker)
    if Path("/proc/self/stat").exists():
        assert is_gone(f"{machine}:{pid}:{int(began) + 1}:{token}")
    assert not is_gone(f"another{machine}:{pid}:1:{token}")
