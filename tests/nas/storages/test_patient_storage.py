"""A storage that does not answer for a while is waited for; one that stays away is an error."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import psycopg2
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError, PendingRollbackError

from hw_profiles.errors import InputError
from nas.storages.open_storage import open_storage
from nas.storages.patient_storage import PatientStorage, is_transient
from tests.postgres import Postgres


class _Unsteady(optuna.storages.InMemoryStorage):
    """Loses the connection after each of the first calls of a method was carried out, so its answer is lost."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        done = super().set_trial_state_values(trial_id, state, values)
        self.failures -= 1
        if self.failures >= 0:
            raise _lost_connection()
        return done


def _lost_connection(text: str = "server closed the connection unexpectedly") -> StorageInternalError:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = OperationalError("SELECT secret", {}, psycopg2.OperationalError(text))
    return error


def test_a_result_whose_answer_got_lost_counts_once() -> None:
    study = optuna.create_study(storage=PatientStorage(_Unsteady(1), "test"))
    study.tell(study.ask(), 0.5)
    assert [trial.value for trial in study.trials] == [0.5]


def test_a_trial_whose_answer_got_lost_is_made_once() -> None:
    backend = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=PatientStorage(backend, "test"))
    create, lost = backend.create_new_trial, []

    def make(study_id: int, template_trial: optuna.trial.FrozenTrial | None = None) -> int:
        number = create(study_id, template_trial)
        if not lost:
            lost.append(number)
            raise _lost_connection()
        return number

    backend.create_new_trial = make  # type: ignore[method-assign]
    study.enqueue_trial({"x": 1})
    study.add_trial(optuna.trial.create_trial(value=1.0))
    assert [trial.state for trial in study.trials] == [TrialState.WAITING, TrialState.COMPLETE]


def test_another_result_of_a_trial_that_is_finished_is_refused() -> None:
    storage = PatientStorage(_Unsteady(1), "test")
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    storage.backend.set_trial_state_values = _first_lost_then(storage.backend, 0.25)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])


def _first_lost_then(backend: Any, value: float) -> Any:
    """Another worker's result arrives, and the answer to ours is lost."""

    def set_state(trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        own = optuna.storages.InMemoryStorage.set_trial_state_values
        if backend.get_trial(trial_id).state == TrialState.RUNNING:
            own(backend, trial_id, state, [value])
            raise _lost_connection()
        return own(backend, trial_id, state, values)

    return set_state


def test_a_storage_that_stays_away_is_an_error_in_one_line_without_the_statement() -> None:
    storage = PatientStorage(_Unsteady(1000), "postgresql://anna:***@host/d", patience=0.3)
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    storage.backend.set_trial_state_values = lambda *_: (_ for _ in ()).throw(_lost_connection())
    with pytest.raises(InputError, match=r"anna:\*\*\*@host/d did not answer for 0.3 s: server closed") as gone:
        study.tell(trial, 1.0)
    assert "SELECT" not in str(gone.value)


@pytest.mark.parametrize("text", ["could not extend file: No space left on device", "password authentication failed"])
def test_what_no_waiting_mends_is_raised_at_once(text: str) -> None:
    assert not is_transient(_lost_connection(text))
    assert is_transient(_lost_connection("the database system is starting up"))


def test_a_read_that_optuna_tries_twice_in_one_broken_transaction_is_tried_again() -> None:
    try:
        try:
            raise OperationalError("SELECT", {}, psycopg2.OperationalError("server closed the connection"))
        except OperationalError:
            raise PendingRollbackError("Can't reconnect until invalid transaction is rolled back.")  # noqa: B904
    except PendingRollbackError as pending:
        error = StorageInternalError("An exception is raised during the commit.")
        error.__cause__ = pending
    assert is_transient(error)
    alone = StorageInternalError("An exception is raised during the commit.")
    alone.__cause__ = PendingRollbackError("of a flush that failed")
    assert not is_transient(alone)


@pytest.mark.slow
def test_no_call_fails_while_postgresql_is_started_anew_again_and_again(postgres: Postgres) -> None:
    url = postgres.new_database("restarts")
    optuna.create_study(storage=open_storage(url), study_name="search")
    over = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        study = optuna.load_study(study_name="search", storage=open_storage(url))
        while not over.is_set() and not errors:
            try:
                trial = study.ask()
                trial.suggest_float("x", 0, 1)
                study.tell(trial, 1.0)
                study.get_trials(deepcopy=False)
            except Exception as error:
                errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for _ in range(8):  # each one hits other calls
        time.sleep(1)
        postgres.stop()
        postgres.start()
    over.set()
    for worker in workers:
        worker.join(60)
    assert not errors


@pytest.mark.slow
def test_workers_wait_while_postgresql_is_stopped_and_go_on(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """Briefly; that workers outlast 20 seconds is a test of the faults."""
    url = postgres.new_database("outage")
    study = optuna.create_study(storage=open_storage(url), study_name="search")
    over = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            mine = optuna.load_study(study_name="search", storage=open_storage(url))
            while not over.is_set():
                trial = mine.ask()
                trial.set_user_attr("x", trial.suggest_float("x", 0, 1))
                mine.tell(trial, trial.params["x"])
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    with caplog.at_level(logging.WARNING, logger="fitnas"):
        for worker in workers:
            worker.start()
        time.sleep(0.5)
        postgres.stop()
        time.sleep(2.5)
        postgres.start()
        before = len(study.trials)
        deadline = time.monotonic() + 60
        while len(study.trials) < before + 5 and not errors and time.monotonic() < deadline:
            time.sleep(0.1)
        over.set()
        for worker in workers:
            worker.join(60)
    assert not errors
    trials = study.trials
    assert len(trials) >= before + 5
    assert [trial.number for trial in trials] == [*range(len(trials))]
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert all(trial.value == trial.user_attrs["x"] for trial in complete)
    assert len(trials) - len(complete) <= 2  # one for each worker may have been made without an answer
    said = [record.getMessage() for record in caplog.records]
    assert any("is not responding; waiting" in line for line in said)
    assert not any("secret" in line for line in said)


def test_a_lock_of_sqlite_is_waited_for(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "a.db"
    storage = open_storage(path)
    study = optuna.create_study(storage=storage)
    holder = sqlite3.connect(path, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.5, holder.rollback)
    release.start()
    study.tell(study.ask(), 1.0)
    release.join()
    holder.close()
    assert study.best_value == 1.0


def test_it_can_be_handed_to_another_process(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "a.db")
    optuna.create_study(storage=storage, study_name="search")
    assert optuna.load_study(study_name="search", storage=pickle.loads(pickle.dumps(storage))).trials == []
