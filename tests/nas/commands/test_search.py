"""``nas search`` and ``nas worker`` as commands: what they print and leave, and what they refuse in one line."""

from __future__ import annotations

import importlib.util
import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import optuna
import pytest

from nas.commands.main import _parser, main
from nas.samplers.trial_attributes import started
from nas.storages.open_storage import open_storage
from search_spaces import Arch
from tests.optional_parts import require
from tests.small_space import NAME

SHORT = ("--data", "digits", *(f"--set={name}" for name in ("size=16", "latency_from=estimated", "search_epochs=0.5")))
SEARCH = ("search", *SHORT, "--space", NAME, "--trials", "3", "--latency", "0.1ms")


def printed(*arguments: str) -> str:
    """What a command prints that must succeed."""
    out = StringIO()
    with redirect_stdout(out):
        assert main(arguments) == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a search, and what it printed."""
    folder = tmp_path_factory.mktemp("searched") / "run"
    return folder, printed(*SEARCH, "--out", str(folder))


def trials_of(address: str | Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="search", storage=open_storage(address)).trials


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that must be refused."""
    assert main(arguments) == 2
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if "nas: " in line]
    assert len(lines) == 1
    assert not shown.out
    return lines[0]


def test_the_front_is_printed_and_the_files_are_there(searched: tuple[Path, str]) -> None:
    folder, out = searched
    assert out.splitlines()[1].split() == ["trial", "val", "acc", "latency", "ms", "peak", "RAM", "bytes", "params"]
    assert "3 candidates were trained" in out
    assert f"selected network: {folder / 'winner.json'}" in out
    assert {"study.db", "trials.csv", "winner.json", "config.toml"} <= {path.name for path in folder.iterdir()}
    Arch.from_json((folder / "winner.json").read_text())
    trials = trials_of(folder / "study.db")
    assert len((folder / "trials.csv").read_text().splitlines()) == 1 + len(trials)
    assert sum(map(started, trials)) == 3


def test_the_same_command_again_repeats_nothing(searched: tuple[Path, str]) -> None:
    folder, _ = searched
    before = [(trial.number, trial.state, trial.datetime_complete) for trial in trials_of(folder / "study.db")]
    winner = (folder / "winner.json").read_bytes()
    found: dict[str, Any] = json.loads(printed(*SEARCH, "--out", str(folder), "--json"))
    after = [(trial.number, trial.state, trial.datetime_complete) for trial in trials_of(folder / "study.db")]
    assert after == before
    assert (folder / "winner.json").read_bytes() == winner
    assert found["winner"]["id"] == Arch.from_json(winner.decode()).id
    assert (found["evaluated"], found["proposed"]) == (3, len(before))
    assert found["ended"] == "all requested candidates were evaluated"
    assert found["plan"] is None
    assert found["front"]
    assert all(row["latency_ms"] <= 0.1 and 0 <= row["val_accuracy"] <= 1 for row in found["front"])


@pytest.mark.slow
def test_a_search_by_time_says_what_it_planned(tmp_path: Path) -> None:
    search = ("search", *SHORT, "--space", NAME, "--time", "25s", "--out", str(tmp_path / "run"))
    found = json.loads(printed(*search, "--json"))
    plan = found["plan"]
    assert (plan["kind"], len(plan["lines"])) == ("a search alone", 3)
    assert plan == json.loads((tmp_path / "run" / "time_plan.json").read_text())
    assert plan["images"] == 1222
    trained = [trial for trial in trials_of(tmp_path / "run" / "study.db") if started(trial)]
    assert trained
    throughput = plan["speeds"]["a network of the space"]
    assert plan["candidate_seconds"] == pytest.approx(plan["epochs"] * 1222 / throughput)
    assert "plan: search only: about " in (tmp_path / "run" / "run.log").read_text()


@pytest.mark.slow
def test_where_nothing_fits_the_reason_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    impossible = ("--latency", "1us", "--out", str(tmp_path / "run"))
    assert main((*SEARCH[:-2], *impossible)) == 3
    error = capsys.readouterr().err
    assert "nas: error: no network meets the limits: " in error
    assert "the binding limit is latency (at most 0.001 ms)" in error
    assert "the smallest change of one limit that would work: latency at most " in error


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--time", "10s", "--storage", "s.journal"), "--storage requires trials"),
        (("--trials", "3", "--storage", "mongodb://host/studies"), "storage must be FILE.db, "),
        (("--trials", "3", "--storage", "nowhere/s.journal"), "there is no folder"),
        (("--trials", "3", "--executor", "dask"), "executor must be one of processes, ray, got 'dask'"),
        (("--trials", "3", "--workers", "0"), "workers must be at least 1, got 0"),
        (("--trials", "3", "--cpus", "-1"), "cpus must be at least 0, got -1.0"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: tuple[str, ...],
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert reason in refusal(capsys, "search", *SHORT, *arguments)


def test_a_password_is_neither_shown_nor_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require(
        importlib.util.find_spec("psycopg2") is not None, "psycopg2 is not installed (pip install 'fitnas[postgres]')"
    )
    monkeypatch.chdir(tmp_path)
    address = "postgresql://anna:ver%79secret@127.0.0.1:1/studies"  # nothing listens on port 1
    for command in (SEARCH, ("worker", "search", "--data", "digits")):
        line = refusal(capsys, *command, "--storage", address)
        assert "cannot open storage postgresql://anna:***@127.0.0.1:1/studies" in line
        assert "secret" not in line
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"secret" in path.read_bytes() for path in files)


@pytest.mark.parametrize("verb", [["search"], ["worker", "name", "--storage", "s.db", "--data", "digits"]])
def test_processors_and_graphics_processors_are_numbers(verb: list[str]) -> None:
    parsed = _parser().parse_args([*verb, "--cpus", "0.5", "--gpus", "1"])
    assert (parsed.cpus, parsed.gpus) == (0.5, 1.0)


@pytest.mark.slow
def test_ray_trains_the_candidates_of_a_search(tmp_path: Path) -> None:
    require(importlib.util.find_spec("ray") is not None, "Ray is not installed (pip install 'fitnas[ray]')")
    ray = ("--executor", "ray", "--workers", "2", "--cpus", "0.5", "--out", str(tmp_path / "run"))
    found = json.loads(printed(*SEARCH, *ray, "--json"))
    assert found["evaluated"] == 3
    complete = [t for t in trials_of(tmp_path / "run" / "study.db") if t.state == optuna.trial.TrialState.COMPLETE]
    assert len(complete) == 3
