"""What a kill or a full disk at any moment does to a run: nothing that the same command does not repair."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from nas.results.collect import SELECTED
from nas.storages.open_storage import open_storage
from tests.optional_parts import require
from tests.small_space import NAME

ROOT = Path(__file__).parents[2]
VICTIM = Path(__file__).with_name("victim.py")
SEARCH = [
    "--data", "digits", "--device", "host", "--latency", "0.1ms", "--trials", "8", "--space", NAME,
    *(f"--set={name}" for name in ("size=16", "latency_from=estimated", "search_epochs=0.2")),
]  # fmt: skip
RUN = [
    "run", *SEARCH, "--teacher", "timm:test_resnet",
    *(f"--set={name}" for name in (
        "teacher_epochs=0.5", "train_epochs=1.5", "distill_epochs=1", "prune_epochs=1", "prune_steps=1", "max_accuracy_drop=30",
    )),
]  # fmt: skip

pytestmark = pytest.mark.faults


def start(moment: str, out: Path, command: list[str] = RUN) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(VICTIM), moment, *command, "--out", str(out)],
        cwd=out.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(out: Path, command: list[str] = RUN) -> Path:
    process = start("never", out, command)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("undisturbed") / "run")


def finished_work(out: Path) -> dict[Path, int]:
    """When each thing was written that must not be made twice."""
    names = ("artifact.json", "weights.safetensors", "winner.json", "decision.json", "facts.json")
    return {path: path.stat().st_mtime_ns for name in names for path in out.rglob(name) if path.parent != out
            and ".partial" not in str(path)} | {path: path.stat().st_mtime_ns for path in out.glob("winner.json")}  # fmt: skip


def same_networks(out: Path, undisturbed: Path) -> None:
    one, other = (json.loads((folder / "metrics.json").read_text()) for folder in (out, undisturbed))
    for ours, theirs in zip(one["rows"], other["rows"], strict=True):
        for name in ("label", "arch", "test_accuracy", "val_accuracy", "file_bytes", "rejection_reason"):
            assert ours.get(name) == theirs.get(name), (ours["label"], name)
    assert one["deployed"] == other["deployed"]
    same_trials(out, undisturbed)


def same_trials(out: Path, undisturbed: Path) -> None:
    found = [trials_of(folder) for folder in (out, undisturbed)]
    assert found[0] == found[1]


def trials_of(folder: Path) -> list[Any]:
    study = optuna.load_study(study_name="search", storage=open_storage(folder / "study.db"))
    return [(trial.number, trial.state, trial.params, trial.values) for trial in study.trials]


def test_a_run_killed_at_eight_random_moments_ends_as_an_undisturbed_one(undisturbed: Path, tmp_path: Path) -> None:
    """In the search, in a training, in a training of a stage, in int8, in the baseline, and while a result is named."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed of the moments: {seed}")
    chance = random.Random(seed)

    def during(*phases: str) -> str:
        return f"at:{chance.choice(phases)}:{chance.uniform(0.05, 0.9):.3f}"

    moments = [
        during("search"), during("teacher", SELECTED), "rename:artifact.json", during("distill", "prune"),
        "rename:02_prune", during("int8"), during("resnet8", "resnet8, int8"), "rename:metrics.json",
    ]  # fmt: skip
    out, kept = tmp_path / "run", dict[Path, int]()
    for moment in moments:
        process = start(moment, out)
        _, err = process.communicate(timeout=600)
        assert process.returncode == -signal.SIGKILL, (seed, moment, err)
        assert {path: path.stat().st_mtime_ns for path in kept} == kept, (seed, moment)
        kept = finished_work(out)
    same_networks(finish(out), undisturbed)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(kept) >= 8


@pytest.mark.parametrize("latest", [0.3, 3.0])
def test_a_search_killed_at_any_time_ends_in_the_same_trials(latest: float, undisturbed: Path, tmp_path: Path) -> None:
    """By the clock, so that the kill can fall between two values of one proposal or into a training."""
    out, seconds = tmp_path / "run", random.uniform(0, latest)
    process = start("never", out, ["search", *SEARCH])
    deadline = time.monotonic() + 300
    while not (out / "study.db").is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    same_trials(finish(out, ["search", *SEARCH]), undisturbed)
    assert (out / "winner.json").read_bytes() == (undisturbed / "winner.json").read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    require(mounted.returncode == 0, "a small disk can only be mounted by root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_space(small_disk: Path, undisturbed: Path) -> None:
    out = small_disk / "run"
    process = start("never", out)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 2, err
    said = [line for line in err.splitlines() if line.startswith("nas: error")]
    assert len(said) == 1, err
    assert "the disk is full. Free some space, then run again: nas run" in said[0]
    assert "Traceback" not in err
    assert (out / "config.toml").is_file()
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    same_networks(finish(out), undisturbed)
