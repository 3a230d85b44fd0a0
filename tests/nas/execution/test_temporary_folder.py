"""What a killed process left is removed, what is in use is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock

from nas.execution.temporary_folder import TemporaryFolder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def left(folder: Path, age: float = 3600) -> Path:
    folder.mkdir()
    (folder / "0.npy").touch()
    (folder / "in-use.lock").touch()
    then = (folder / "in-use.lock").stat().st_mtime - age
    os.utime(folder / "in-use.lock", (then, then))
    return folder


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    abandoned, young = left(tmp_path / "fitnas-a"), left(tmp_path / "fitnas-b", age=0)
    others = tmp_path / "of-others"
    others.mkdir()
    with TemporaryFolder():
        assert not abandoned.exists()
        assert young.exists()
        assert others.exists()


def test_what_is_in_use_is_kept(tmp_path: Path) -> None:
    used = left(tmp_path / "fitnas-a")
    with FileLock(used / "in-use.lock"):
        then = 0.0
        os.utime(used / "in-use.lock", (then, then))
        with TemporaryFolder() as mine:
            assert used.exists()
            assert mine.is_dir()
    assert not mine.exists()
