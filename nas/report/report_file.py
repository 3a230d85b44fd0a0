"""Writes the page of a finished run again, or one page that compares several runs."""

from __future__ import annotations

from pathlib import Path

from compress.atomic_files import write_text
from hw_profiles.errors import InputError
from nas.report.comparison import render_comparison
from nas.report.page import render_run


def write_report(*folders: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a finished run, or a page that compares two to four runs, as ``nas report`` does.

    ``out`` is the page to write; by default ``report.html`` in the folder of a single run, or ``comparison.html`` in
    the current folder. Returns its path.

    Raises:
        InputError: a folder does not hold a finished run, or there are none, more than four, or one twice.
    """
    if not folders:
        raise InputError("write_report needs the folder of at least one finished run")
    paths = [Path(folder) for folder in folders]
    single = len(paths) == 1
    path = Path(out) if out is not None else paths[0] / "report.html" if single else Path("comparison.html")
    write_text(path, render_run(paths[0]) if single else render_comparison(paths))
    return path
