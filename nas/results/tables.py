"""The networks of a run and the trials of its search as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import optuna

from nas.results.records import records

_COLUMNS = {
    "label": "", "val_accuracy": "val. accuracy", "test_accuracy": "test accuracy", "params": "params", "macs": "MACs",
    "file_bytes": "file bytes", "latency": "latency, ms (90% interval)", "peak_ram_bytes": "peak RAM", "note": "",
}  # fmt: skip


def table(metrics: Mapping[str, Any]) -> str:
    """The networks of a run, one a line.

    >>> print(table({"rows": [{"label": "winner", "val_accuracy": 0.5, "params": 1000}]}).splitlines()[1].split()[:2])
    ['winner', '50.00%']
    """
    rows = [row_cells(row) for row in metrics["rows"]]
    lines = [[*_COLUMNS.values()], *([row[name] for name in _COLUMNS] for row in rows)]
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


def row_cells(row: Mapping[str, Any], dash: str = "-") -> dict[str, str]:
    """What is known of a network as text, by name; ``dash`` stands for what is not, and within intervals.

    >>> cells = row_cells({"label": "winner", "val_accuracy": 0.5, "params": 1000, "rejection_reason": "slower"})
    >>> cells["val_accuracy"], cells["params"], cells["macs"], cells["note"]
    ('50.00%', '1,000', '-', 'reverted: slower')
    """

    def show(name: str, form: str) -> str:
        return format(row[name], form) if row.get(name) is not None else dash

    def interval(name: str, times: int, form: str) -> str:
        low, high = (row.get(name.format(end)) for end in ("_low", "_high"))
        return "" if low is None or high is None else f" ({times * low:{form}}{dash}{times * high:{form}})"

    reason = row.get("rejection_reason")
    return {
        "label": row.get("label", ""),
        "val_accuracy": "n/a (used for training)" if row.get("val_seen") else show("val_accuracy", ".2%"),
        "test_accuracy": show("test_accuracy", ".2%"),
        "test_interval": show("test_accuracy", ".2%") + interval("test_accuracy{}", 100, ".1f"),
        "test_balanced_accuracy": show("test_balanced_accuracy", ".2%"),
        "params": show("params", ","),
        "macs": show("macs", ","),
        "file_bytes": show("file_bytes", ","),
        "latency": show("latency_ms", ".3f") + interval("latency{}_ms", 1, ".3f"),
        "latency_source": row.get("latency_source") or dash,
        "estimated_ms": show("estimated_ms", ".3f"),
        "peak_ram_bytes": show("peak_ram_bytes", ","),
        "note": f"reverted: {reason}" if reason else row.get("note", "final model" if row.get("deployed") else ""),
    }
