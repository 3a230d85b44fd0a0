"""A process is used again where that is safe, and is then like the process that asks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from blocks.custom import CUSTOM_BLOCKS, REGISTERED_BY
from nas.errors import CrashError
from nas.execution import kept_processes
from nas.execution.shielded import run_shielded
from nas.execution.worker_processes import WorkerProcesses
from search_spaces.lowering import LOWERINGS
from tests.nas.execution import calls


def pid() -> int:
    return int(run_shielded(os.getpid, what="a call"))


def test_outside_each_work_has_a_process_of_its_own() -> None:
    assert len({pid(), pid(), os.getpid()}) == 3


def test_inside_one_process_does_all_and_ends_at_the_end() -> None:
    with kept_processes.kept_processes():
        first = pid()
        with kept_processes.kept_processes():
            assert pid() == first
        executor = WorkerProcesses(calls.process_of)
        assert executor.submit(None, 1.0).result() == first
        executor.close()
        assert pid() == first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_one_that_crashed_is_replaced() -> None:
    with kept_processes.kept_processes():
        first = pid()
        with pytest.raises(CrashError):
            run_shielded(os.abort, what="a call")
        assert pid() != first


def test_one_that_raised_is_kept() -> None:
    with kept_processes.kept_processes():
        first = pid()
        with pytest.raises(ZeroDivisionError):
            run_shielded(divmod, 1, 0, what="a call")
        assert pid() == first


def test_it_is_in_the_folder_and_environment_of_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kept_processes.kept_processes():
        first = pid()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("ASKED_BY", "a test")
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
        assert run_shielded(os.getcwd, what="a call") == str(tmp_path)
        assert run_shielded(os.getenv, "ASKED_BY", what="a call") == "a test"
        assert run_shielded(calls.import_path, what="a call")[-1] == str(tmp_path)
        assert pid() == first


def test_a_memory_limit_holds_for_its_worker_alone() -> None:
    with kept_processes.kept_processes():
        executor = WorkerProcesses(calls.process_of, memory_bytes=10**9)
        first = executor.submit(None, 1.0).result()
        executor.close()
        assert run_shielded(calls.memory_limit, what="a call") == calls.memory_limit()
        assert pid() == first


def test_blocks_that_were_registered_here_are_registered_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "holds_a_block.py").write_text("class Own: pass\n")
    (tmp_path / "registers_a_block.py").write_text(
        "from holds_a_block import Own\n"
        "from search_spaces import register_block\n"
        "register_block('own_of_a_test', Own, lambda builder, name, x, spec: x)\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "registers_a_block", raising=False)
    __import__("registers_a_block")
    try:
        assert "own_of_a_test" in run_shielded(calls.custom_blocks, what="a call")
    finally:
        for registry in (CUSTOM_BLOCKS, REGISTERED_BY, LOWERINGS):
            del registry["own_of_a_test"]
