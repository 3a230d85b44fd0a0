"""``nas report``: the page of a finished run, or of several runs beside each other."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from nas.commands.output.output_files import check_page
from nas.commands.output.text_table import printable
from nas.errors import user_input


def run_report(parsed: Namespace) -> None:
    """Write the page.

    Raises:
        InputError: a folder without a finished run, or too many of them.
    """
    from nas.report.report_file import write_report

    with user_input():
        if parsed.out is not None:
            check_page(Path(parsed.out), "--out")
        path = write_report(*parsed.run, out=parsed.out)
    print(f"report: {printable(path)}")
