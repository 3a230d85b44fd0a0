"""The networks of a run and the trials of its search as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import optuna

from nas.samplers.trial_attributes import CAUSE, COST, WHY

COLUMNS = ("val acc", "test acc", "params", "MACs", "file bytes", "latency ms (90 %)", "peak RAM", "")


def table(metrics: Mapping[str, Any]) -> str:
    """The networks of a run, one a line.

    >>> print(table({"rows": [{"label": "winner", "val_accuracy": 0.5, "params": 1000}]}).splitlines()[1][:15])
    winner  50.00 %
    """
    lines = [("", *COLUMNS), *(cells(row) for row in metrics["rows"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i in (0, len(widths) - 1) else cell.rjust(width)
                  for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    )  # fmt: skip


def trials_csv(study: optuna.Study) -> str:
    """One line a trial: number, state, values, why or cause, costs, parameters."""
    trials = study.trials
    costs = sorted({name for t in trials for name in t.user_attrs.get(COST, {})})
    names = list(dict.fromkeys(name for t in trials for name in t.params))
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["number", "state", "values", "why", *costs, *names])
    for t in trials:
        why = t.user_attrs.get(WHY) or t.user_attrs.get(CAUSE, "")
        values = " ".join(f"{value:.6g}" for value in t.values or [])
        found = t.user_attrs.get(COST, {})
        writer.writerow(
            [
                t.number,
                t.state.name,
                values,
                why,
                *(found.get(c, "") for c in costs),
                *(t.params.get(n, "") for n in names),
            ]
        )
    return buffer.getvalue()


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table as text, in the order of COLUMNS after its label."""

    def show(name: str, form: str) -> str:
        return format(row[name], form) if row.get(name) is not None else "-"

    latency = "-"
    if row.get("latency_ms") is not None:
        latency = f"{row['latency_ms']:.3f} ({row['latency_low_ms']:.3f}-{row['latency_high_ms']:.3f})"
    note = row.get("note", "deployed" if row.get("deployed") else "")
    if row.get("rejection_reason"):
        note = f"reverted: {row['rejection_reason']}"
    return (
        row["label"],
        "n/a (trained on)" if row.get("val_seen") else f"{100 * row['val_accuracy']:.2f} %",
        f"{100 * row['test_accuracy']:.2f} %" if "test_accuracy" in row else "-",
        show("params", ","),
        show("macs", ","),
        show("file_bytes", ","),
        latency,
        show("peak_ram_bytes", ","),
        note,
    )
