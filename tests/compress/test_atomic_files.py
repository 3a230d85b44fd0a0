"""Files are replaced as a whole, and what is no file is not replaced."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread

import pytest

from compress.atomic_files import write_bytes
from hw_profiles.errors import InputError


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert [each.name for each in path.parent.iterdir()] == ["file"]
    with pytest.raises(InputError, match="is a folder, expected the name of a file"):
        write_bytes(path.parent, b"three")


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_bytes(pipe, b"some")
    reader.join(10)
    assert got == [b"some"]
    assert pipe.is_fifo()
