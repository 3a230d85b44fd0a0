"""Files of studies: names, and several processes that make one at a time."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import optuna
import pytest

from nas.storages.sqlite_file import create_database, sqlite_url


@pytest.mark.parametrize("name", ["50%?.db", "{a}.db", "with space#.db"])
def test_a_file_of_any_name_is_addressed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    create_database(path)
    optuna.create_study(storage=sqlite_url(path), study_name="search")
    assert optuna.load_study(study_name="search", storage=sqlite_url(path)).trials == []
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_processes_that_make_one_file_at_once_all_find_it_whole(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    makers = [context.Process(target=_make, args=(tmp_path / "study.db", start, name)) for name in "abcd"]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [maker.exitcode for maker in makers] == [0] * 4
    names = [study.study_name for study in optuna.get_all_study_summaries(sqlite_url(tmp_path / "study.db"))]
    assert sorted(names) == list("abcd")
    assert [file.name for file in tmp_path.iterdir()] == ["study.db"]


def _make(path: Path, start: multiprocessing.synchronize.Barrier, name: str) -> None:
    start.wait()
    create_database(path)
    optuna.create_study(storage=sqlite_url(path), study_name=name)
