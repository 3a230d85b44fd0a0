"""A long call in a process of its own: what it returns and raises comes back, a crash is an error."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compress.atomic_files import read_json
from hw_profiles.errors import InputError
from nas.commands import main as command
from nas.errors import CrashError, disk_is_full
from nas.execution.shielded import run_shielded
from tests.nas.execution import calls
from tests.nas.execution.test_worker_processes import PATIENCE, await_end, started


def test_the_result_comes_back() -> None:
    found = run_shielded(np.arange, 1 << 20, keywords={"dtype": "float32"}, what="counting")
    assert found.dtype == np.float32
    assert found[-1] == (1 << 20) - 1


@pytest.mark.parametrize("name", [name for name in calls.ERRORS if name != "not loadable"])
def test_what_is_raised_comes_back(name: str) -> None:
    expected = calls.ERRORS[name]
    with pytest.raises(type(expected)) as caught:
        run_shielded(calls.fail, name, what="the training")
    assert str(caught.value) == str(expected)
    assert disk_is_full(caught.value) == (name == "disk")
    assert "in fail" in str(caught.value.__cause__)


def test_an_exception_that_no_other_process_can_load_keeps_its_text_and_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"^NotLoadableError: 1 and 2$") as caught:
        run_shielded(calls.fail, "not loadable", what="the training")
    assert "in fail" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("abort", r"^the training was killed by signal 6 \(aborted\)$"),
        ("killed", r"^the training was killed by signal 9 \(probably out of memory\)$"),
        ("exit", r"^the training exited with code 3$"),
    ],
)
def test_a_crash_is_an_error(how: str, said: str) -> None:
    with pytest.raises(CrashError, match=said) as caught:
        run_shielded(calls.die, how, what="the training")
    assert ("in die" in str(caught.value.__cause__)) == (how == "abort")


def test_a_crash_is_tried_once_more_in_another_way_and_then_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    note = tmp_path / "new" / "crash.json"
    for _ in range(2):
        assert run_shielded(calls.die, "abort", what="the training", after_crash=["other"], note=note) == "other"
    assert read_json(note) == {"crash": "was killed by signal 6 (aborted)"}
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == ["the training was killed by signal 6 (aborted); retrying once with different kernels"]


def test_a_crash_in_both_ways_is_an_error() -> None:
    with pytest.raises(CrashError, match=r"^the training exited with code 3$"):
        run_shielded(calls.die, "abort", what="the training", after_crash=["exit"])


def test_a_lack_of_memory_is_not_tried_again_nor_remembered(tmp_path: Path) -> None:
    note = tmp_path / "crash.json"
    with pytest.raises(CrashError, match="signal 9"):
        run_shielded(calls.die, "killed", what="the training", after_crash=["other"], note=note)
    assert not note.exists()


def test_progress_and_log_are_told_here(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, str]] = []
    caplog.set_level(logging.INFO, "fitnas")
    process = run_shielded(calls.tell, what="the training", report=lambda share, note: seen.append((share, note)))
    assert process != os.getpid()
    assert seen[0] == (0.2, "step 1")
    assert seen[-1] == (1.0, "step 5")
    assert [record.getMessage() for record in caplog.records] == ["5 steps"]


def test_bars_are_opened_and_closed_here() -> None:
    seen: list[Any] = []

    @contextmanager
    def show(label: str) -> Iterator[Any]:
        seen.append(label)
        yield lambda share, note: seen.append(share)
        seen.append(f"end of {label}")

    assert run_shielded(calls.show_bars, ["a", "b"], what="two", show=show) == ["a", "b"]
    assert seen == ["a", 1.0, "end of a", "b", 1.0, "end of b"]


def test_a_bar_that_a_crash_leaves_open_is_closed() -> None:
    seen: list[str] = []

    @contextmanager
    def show(label: str) -> Iterator[Any]:
        seen.append(label)
        try:
            yield lambda share, note: None
        finally:
            seen.append("closed")

    with pytest.raises(CrashError):
        run_shielded(calls.die_in_part, "abort", what="the training", show=show)
    assert seen == ["half", "closed"]


def test_as_many_threads_as_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums in another number of threads come out in another way."""
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: 7))
    assert run_shielded(calls.threads, what="counting") == "7"


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(InputError, match=r"^the training cannot be sent to another process"):
        run_shielded(lambda: None, what="the training")
    with pytest.raises(InputError, match=r"^the training cannot be sent to another process"):
        run_shielded(calls.die, lambda: None, what="the training")


def test_nothing_is_left_in_the_folder_of_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_shielded(calls.die, "well", what="the training")
    with pytest.raises(CrashError):
        run_shielded(calls.die, "abort", what="the training")
    assert not list(tmp_path.iterdir())


INTERRUPTED = """
from nas.execution.shielded import run_shielded
from tests.nas.execution.calls import hang
try:
    run_shielded(hang, what="the training")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_ends_the_call_without_a_word_of_the_other_process(tmp_path: Path) -> None:
    with started(tmp_path / "script.py", INTERRUPTED) as parent:
        assert parent.stderr is not None  # stdout is for the data of the parent
        child = int(parent.stderr.readline())
        os.killpg(parent.pid, signal.SIGINT)
        out, err = parent.communicate(timeout=PATIENCE)
        assert (parent.returncode, out, err) == (0, "interrupted\n", "")
        await_end(child)


def test_a_command_tells_a_crash_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crashed(parsed: object) -> None:
        run_shielded(calls.die, "abort", what="the training of the winner")

    monkeypatch.setitem(command._COMMANDS, "list", crashed)
    assert command.main(["list"]) == 1
    assert capsys.readouterr().err == (
        "nas: error: the training of the winner was killed by signal 6 (aborted). "
        "Completed work was saved. To resume, run: nas list\n"
    )
