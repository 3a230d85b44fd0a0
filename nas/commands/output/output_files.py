"""Checks of files that a command is asked to write, before the work begins."""

from __future__ import annotations

from pathlib import Path

from nas.errors import InputError


def check_page(path: Path, option: str = "--html") -> None:
    """Raise an InputError where the page that an option names cannot be written."""
    if path.is_dir():
        raise InputError(f"{option} must be a file, got the folder {str(path)!r}")
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise InputError(f"{option}: cannot write to {str(path)!r}, {str(nearest)!r} is not a folder")
