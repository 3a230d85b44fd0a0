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

import pytest

from tests.optional_parts import require

ROOT = Path(__file__).parents[2]
VICTIM = Path(__file__).with_name("victim.py")
RUN = [
    "run", "--data", "digits", "--device", "host", "--latency", "0.5ms", "--trials", "4", "--teacher", "timm:resnet10t",
    *(f"--set={name}" for name in (
        "latency_from=estimated", "search_epochs=0.5", "teacher_epochs=0.5", "train_epochs=1.5", "distill_epochs=1",
        "prune_epochs=1", "max_accuracy_drop=30",
    )),
]  # fmt: skip

pytestmark = pytest.mark.faults


def start(moment: str, out: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(VICTIM), moment, *RUN, "--out", str(out)],
        cwd=out.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(out: Path) -> dict[str, Any]:
    process = start("never", out)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return finish(tmp_path_factory.mktemp("undisturbed") / "run")


def finished_work(out: Path) -> dict[Path, int]:
    """When each thing was written that must not be made twice."""
    names = ("artifact.json", "weights.safetensors", "winner.json", "decision.json", "facts.json")
    return {path: path.stat().st_mtime_ns for name in names for path in out.rglob(name) if path.parent != out
            and ".partial" not in str(path)} | {path: path.stat().st_mtime_ns for path in out.glob("winner.json")}  # fmt: skip


def same_networks(one: dict[str, Any], other: dict[str, Any]) -> None:
    for ours, theirs in zip(one["rows"], other["rows"], strict=True):
        for name in ("label", "arch", "test_accuracy", "val_accuracy", "file_bytes", "rejection_reason"):
            assert ours.get(name) == theirs.get(name), (ours["label"], name)
    assert one["deployed"] == other["deployed"]
    assert one["trials"] == other["trials"]


def test_a_run_killed_at_ten_random_moments_ends_as_an_undisturbed_one(
    undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"seed of the moments: {seed}")
    generator = random.Random(seed)
    phases = ("search", "teacher", "winner", "distill", "prune", "int8", "resnet8", "resnet8, int8")
    moments = [f"at:{phase}:{generator.uniform(0.05, 0.9):.3f}" for phase in phases]
    moments[4:4] = ["rename:artifact.json", "rename:02_prune"]
    moments += ["rename:metrics.json"]
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


@pytest.mark.parametrize("number", range(2))
def test_a_search_killed_at_any_time_ends_in_the_same_trials(
    number: int, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """By the clock, so that the kill can fall between two values of one proposal or into a training."""
    out, seconds = tmp_path / "run", random.uniform(0, 2)
    process = start("never", out)
    deadline = time.monotonic() + 300
    while not (out / "study.db").is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    same_networks(finish(out), undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    require(mounted.returncode == 0, "a small disk can only be mounted by root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_space(
    small_disk: Path, undisturbed: dict[str, Any]
) -> None:
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
