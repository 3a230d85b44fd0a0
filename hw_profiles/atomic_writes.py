"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from hw_profiles.errors import InputError


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` at once; an InputError where a folder has that name.

    What is no regular file, such as a device or a pipe, is written to and stays what it is.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected the name of a file")
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by UTF-8 text at once."""
    write_bytes(path, text.encode())
