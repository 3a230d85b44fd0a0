"""Damaged SQLite files: named, and the trials that can be read saved."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest

from hw_profiles.errors import InputError
from nas.storages.open_storage import open_storage
from nas.storages.salvage import salvage
from nas.storages.sqlite_file import sqlite_url

_PAGE = 4096
_TRIALS = 120


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "study.db"
    study = optuna.create_study(
        storage=open_storage(path), study_name="search", directions=["maximize", "minimize"],
        sampler=optuna.samplers.RandomSampler(seed=0),
    )  # fmt: skip
    study.set_user_attr("objectives", ["accuracy", "latency_ms"])
    memory = optuna.create_study(directions=study.directions, sampler=study.sampler)
    memory.optimize(_evaluate, n_trials=_TRIALS)
    study.add_trials(memory.trials)
    return path


def _evaluate(trial: optuna.Trial) -> tuple[float, float]:
    values = [trial.suggest_float(f"x{i}", 0, 1) for i in range(4)]
    trial.set_user_attr("cost", {"latency_ms": values[0]})
    trial.set_constraint("latency_ms", values[0] - 0.5)
    return values[1], values[0]


def _spoil(whole: Path, folder: Path, first: int, pages: int, content: bytes) -> Path:
    path = folder / "study.db"
    shutil.copyfile(whole, path)
    with path.open("r+b") as file:
        file.seek(first * _PAGE)
        file.write((content * _PAGE)[:_PAGE] * pages)
    return path


def _saved(whole: Path, path: Path) -> int:
    """How many trials were saved, each of them as it was."""
    before = optuna.load_study(study_name="search", storage=sqlite_url(whole))
    known = {tuple(trial.params.values()): trial for trial in before.trials}
    found = salvage(path)
    if found is None:
        return 0
    new, number = found
    study = optuna.load_study(study_name="search", storage=open_storage(new))
    assert study.directions == before.directions
    assert len(study.trials) == number
    for trial in study.trials:
        old = known[tuple(trial.params.values())]
        assert (trial.values, trial.state, trial.datetime_start) == (old.values, old.state, old.datetime_start)
        assert trial.user_attrs == old.user_attrs or not trial.user_attrs
    return number


def test_a_whole_file_is_copied_whole(whole: Path, tmp_path: Path) -> None:
    shutil.copyfile(whole, tmp_path / "study.db")
    assert _saved(whole, tmp_path / "study.db") == _TRIALS
    study = optuna.load_study(study_name="search", storage=sqlite_url(tmp_path / "study.recovered.db"))
    assert study.user_attrs == {"objectives": ["accuracy", "latency_ms"]}
    assert all(trial.constraints and trial.user_attrs["cost"] for trial in study.trials)


_PLACES = [(share, content) for share in (0.5, 0.7, 0.8, 0.9) for content in (b"\0", b"garbage!")]


@pytest.mark.parametrize(
    ("share", "content"),
    [(0.6, b"\0"), (0.97, b"garbage!"), *(pytest.param(*place, marks=pytest.mark.slow) for place in _PLACES)],
)
def test_of_a_file_with_a_bad_page_in_its_middle_most_trials_are_saved(
    whole: Path, tmp_path: Path, share: float, content: bytes
) -> None:
    pages = whole.stat().st_size // _PAGE
    assert _saved(whole, _spoil(whole, tmp_path, int(pages * share), 1, content)) >= _TRIALS // 2


def test_a_file_without_its_first_page_is_read_all_the_same(whole: Path, tmp_path: Path) -> None:
    assert _saved(whole, _spoil(whole, tmp_path, 0, 1, b"\0")) == _TRIALS


def test_of_a_file_that_was_cut_off_the_first_trials_are_saved(whole: Path, tmp_path: Path) -> None:
    path = _spoil(whole, tmp_path, 0, 0, b"")
    with path.open("r+b") as file:
        file.truncate(whole.stat().st_size * 85 // 100 + 100)
    assert 10 < _saved(whole, path) < _TRIALS


def test_a_search_on_a_damaged_file_says_what_was_saved_and_how_to_go_on(whole: Path, tmp_path: Path) -> None:
    pages = whole.stat().st_size // _PAGE
    path = _spoil(whole, tmp_path, pages // 2, pages // 4, b"garbage!")
    with pytest.raises(InputError, match=r"study\.db is damaged. Recovered \d+ trials to .*recovered\.db"):
        _ = optuna.load_study(study_name="search", storage=open_storage(path)).trials
    path.replace(tmp_path / "damaged.db")
    (tmp_path / "study.recovered.db").replace(path)
    study = optuna.load_study(study_name="search", storage=open_storage(path))
    study.optimize(_evaluate, n_trials=1)


def test_a_file_of_which_nothing_is_left_is_named(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.write_bytes(b"garbage!" * 5000)
    with pytest.raises(InputError, match=r"study\.db: not the database of a study, or damaged beyond repair"):
        open_storage(path)
    assert [file.name for file in tmp_path.iterdir()] == ["study.db"]
