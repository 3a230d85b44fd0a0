"""Atomic file writes: to a temporary neighbour first, then renamed, so that an interrupted write leaves no half
file."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace ``path`` by indented JSON at once."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def json_text(data: Any) -> str:
    """Indented JSON; numbers that JSON does not have, such as NaN, become null.

    >>> json_text({"loss": float("nan")})
    '{\\n "loss": null\\n}'
    """
    return json.dumps(_finite(data), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """What :func:`write_json` wrote; an InputError where the file holds no JSON object, or one without these keys."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also what is no UTF-8, or nested too deeply
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: must hold a JSON object, got {type(data).__name__}")
    if missing := [key for key in keys if key not in data]:
        raise InputError(f"{path}: missing key {missing[0]!r}")
    return data


def finish_folder(partial: Path, final: Path) -> None:
    """Give a complete folder its name; a stale one of that name is removed."""
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
