"""Storages by their addresses, and what is said where one cannot be opened."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import optuna
import pytest

from hw_profiles.errors import InputError
from nas.storages.open_storage import open_storage, storage_label
from tests.postgres import PASSWORD, Postgres


@pytest.mark.parametrize("address", ["{}/a.db", "sqlite:///{}/a.db", "journal:{}/a", "{}/a.journal", "{}/a.log"])
def test_what_one_process_writes_to_a_file_another_reads(tmp_path: Path, address: str) -> None:
    study = optuna.create_study(storage=open_storage(address.format(tmp_path)), study_name="search")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    again = optuna.load_study(study_name="search", storage=open_storage(address.format(tmp_path)))
    assert [trial.params for trial in again.trials] == [trial.params for trial in study.trials]


def test_a_server_is_opened_and_keeps_a_study(postgres: Postgres) -> None:
    url = postgres.new_database("opened")
    optuna.create_study(storage=open_storage(url), study_name="search").add_trial(optuna.trial.create_trial(value=1.0))
    again = optuna.load_study(study_name="search", storage=open_storage(url.replace("postgresql:", "postgres:")))
    assert again.best_value == 1.0


def test_workers_that_begin_on_one_empty_server_at_once_share_the_study(postgres: Postgres) -> None:
    url = postgres.new_database("begun_at_once")
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    workers = [context.Process(target=_begin, args=(url, start)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert sorted(t.number for t in optuna.load_study(study_name="search", storage=open_storage(url)).trials) == [
        *range(4)
    ]


def _begin(url: str, start: multiprocessing.synchronize.Barrier) -> None:
    start.wait()
    study = optuna.create_study(storage=open_storage(url), study_name="search", load_if_exists=True)
    study.tell(study.ask(), 1.0)


@pytest.mark.parametrize(
    "address", ["study", "mongodb://anna:{}@host/x", "grpc://host", "postgresql://anna:{}@host:x/d"]
)
def test_an_address_of_no_kind_is_refused_with_what_is_valid(address: str) -> None:
    with pytest.raises(InputError, match=r"storage must be FILE\.db, .* or grpc://HOST:PORT, got") as refused:
        open_storage(address.format(PASSWORD))
    assert PASSWORD not in str(refused.value)


def test_a_server_that_refuses_is_named_without_the_password(postgres: Postgres) -> None:
    for url in (
        postgres.url(password="wrong secret"),
        postgres.url("nowhere"),
        postgres.url().replace(str(postgres.port), "1"),
    ):
        with pytest.raises(InputError, match=r"cannot open storage postgresql://\w+:\*\*\*@") as refused:
            open_storage(url)
        assert "secret" not in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "module", "install"),
    [
        ("postgresql://anna:secret@host/d", "psycopg2", "postgres"),
        ("mysql://anna:secret@host/d", "pymysql", "mysql"),
        ("grpc://host:13000", "grpc", "grpc"),
    ],
)
def test_a_missing_driver_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, address: str, module: str, install: str
) -> None:
    for name in [
        name for name in sys.modules if name.split(".")[0] == module or name.startswith("optuna.storages._grpc.auto")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'fitnas\[{install}\]'") as refused:
        open_storage(address)
    assert "secret" not in str(refused.value)


def test_a_folder_that_is_missing_and_a_file_of_another_kind_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database " * 1000)
    (tmp_path / "text.journal").write_text("no journal\n" * 10)
    for name, said in (("none/a.db", "no folder"), ("text.db", "not the database"), ("text.journal", "not a journal")):
        with pytest.raises(InputError, match=said) as refused:
            open_storage(tmp_path / name)
        assert name in str(refused.value)


def test_what_is_no_address_is_given_back() -> None:
    storage = optuna.storages.InMemoryStorage()
    assert open_storage(storage) is storage
    assert open_storage(None) is None
    assert (
        storage_label("mysql+pymysql://anna:secret@host/d?charset=utf8")
        == "mysql+pymysql://anna:***@host/d?charset=utf8"
    )
