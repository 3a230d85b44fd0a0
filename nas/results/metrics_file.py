"""Reads metrics.json of a run folder, which may come from someone else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.atomic_files import read_json
from hw_profiles.errors import InputError

_LARGEST_METRICS = 64 * 1024**2


def read_metrics(path: Path) -> dict[str, Any]:
    """What a metrics.json holds; an InputError where it is too large or no JSON."""
    if path.stat().st_size > _LARGEST_METRICS:
        raise InputError(f"{path}: must be at most {_LARGEST_METRICS} bytes, got {path.stat().st_size}")
    return read_json(path)
