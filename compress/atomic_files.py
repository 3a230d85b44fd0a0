"""JSON files and folders that are written whole or not at all."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw_profiles.atomic_writes import write_bytes, write_text
from hw_profiles.errors import InputError

__all__ = ["finish_folder", "json_text", "read_json", "write_bytes", "write_json", "write_text"]


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
