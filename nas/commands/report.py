"""``nas report``: the page of a finished run, or of several runs beside each other."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from compress.atomic_files import write_text
from nas.commands.output.output_files import check_page
from nas.commands.output.text_table import printable
from nas.errors import user_input


def run_report(parsed: Namespace) -> None:
    """Write the page.

    Raises:
        InputError: a folder without a finished run, or too many of them.
    """
    from nas.report.comparison import render_comparison
    from nas.report.page import render_run

    folders = [Path(each) for each in parsed.run]
    path = folders[0] / "report.html" if len(folders) == 1 else Path("comparison.html")
    with user_input():
        if parsed.out is not None:
            path = Path(parsed.out)
            check_page(path, "--out")
        write_text(path, render_run(folders[0]) if len(folders) == 1 else render_comparison(folders))
    print(f"report: {printable(path)}")
