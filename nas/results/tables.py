"""The networks of a run and the trials of its search as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import optuna

from nas.results.records import records

COLUMNS = (
    "val. accuracy", "test accuracy", "params", "MACs", "file size", "latency, ms (90% interval)", "peak RAM", ""
)  # fmt: skip


def table(metrics: Mapping[str, Any]) -> str:
    """The networks of a run, one a line.

    >>> print(table({"rows": [{"label": "int8", "val_accuracy": 0.5, "params": 1000}]}).splitlines()[1].split()[:2])
    ['int8', '50.00%']
    """
    lines = [("", *COLUMNS), *(cells(row) for row in metrics["rows"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i in (0, len(widths) - 1) else cell.rjust(width)
                  for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    )  # fmt: skip


def trials_csv(study: optuna.Study) -> str:
    """The :func:`nas.records` of a study as a CSV file."""
    rows = records(study)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table as text, in the order of COLUMNS after its label."""

    def show(name: str, form: str) -> str:
        return format(row[name], form) if row.get(name) is not None else "-"

    latency = "-"
    if row.get("latency_ms") is not None:
        latency = f"{row['latency_ms']:.3f} ({row['latency_low_ms']:.3f}-{row['latency_high_ms']:.3f})"
    note = row.get("note", "final model" if row.get("deployed") else "")
    if row.get("rejection_reason"):
        note = f"reverted: {row['rejection_reason']}"
    return (
        row["label"],
        "n/a (used for training)" if row.get("val_seen") else f"{100 * row['val_accuracy']:.2f}%",
        f"{100 * row['test_accuracy']:.2f}%" if "test_accuracy" in row else "-",
        show("params", ","),
        show("macs", ","),
        show("file_bytes", ","),
        latency,
        show("peak_ram_bytes", ","),
        note,
    )
