"""Writes that a kill cannot halve: to a neighbour first, then renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` at once; a ValueError where a folder has that name."""
    if path.is_dir():
        raise ValueError(f"{path}: must be the name of a file, is a folder")
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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace ``path`` by indented JSON at once."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What :func:`write_json` wrote."""
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def finish_folder(partial: Path, final: Path) -> None:
    """Give a complete folder its name; a stale one of that name is removed."""
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
