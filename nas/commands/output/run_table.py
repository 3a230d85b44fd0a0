"""The models of a run and the steps of a compression as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.commands.output.text_table import aligned, short, wrapped
from nas.results.waterfall import lost, step_note

Row = Mapping[str, Any]

_RUN_HEAD = ("", "val.", "test", "params", "MACs", "file", "latency, ms (90%)", "RAM")
_STEPS_HEAD = ("step", "file", ".fnz", "latency, ms", "RAM", "val.", "drop, points (interval)", "seconds")


def run_table(rows: Sequence[Row]) -> list[str]:
    """The models of a run, one a line, with a remark below where there is one.

    >>> run_table([{"label": "int8", "val_accuracy": 0.5, "params": 1000, "deployed": True}])[1:3]
    ['int8  50.00%     -      1k     -     -                  -    -', '      final model']
    """
    seen = any(row.get("val_seen") for row in rows)
    explained = "val.: n/a where the validation images were used for training; file, RAM: bytes (k = 1000)"
    return [
        *_with_remarks(_RUN_HEAD, [_run_cells(row) for row in rows], [_remark(row) for row in rows]),
        *wrapped(explained if seen else explained.partition("; ")[2]),
    ]


def steps_table(rows: Sequence[Row]) -> list[str]:
    """The steps of a compression, one a line, with a remark below where there is one."""
    cells = [
        [
            str(row["label"]),
            short(row["file_bytes"]),
            short(row["coded_bytes"]),
            f"{row['latency_ms']:.3f}",
            short(row["peak_ram_bytes"]),
            f"{100 * row['val_accuracy']:.2f}%",
            lost(row.get("change")),
            f"{row['seconds']:.1f}",
        ]
        for row in rows
    ]
    return [
        *_with_remarks(_STEPS_HEAD, cells, [step_note(row) for row in rows]),
        *wrapped("file, .fnz, RAM: bytes (k = 1000); .fnz: compressed file; drop: relative to the original model"),
    ]


def _with_remarks(head: Sequence[str], cells: Sequence[Sequence[str]], remarks: Sequence[str]) -> list[str]:
    first, *lines = aligned(head, cells, left=1, fill=0)
    indent = " " * (max(len(row[0]) for row in cells) + 2)
    below = [[line, *wrapped(remark, indent, indent)] for line, remark in zip(lines, remarks, strict=True)]
    return [first, *(line for each in below for line in each)]


def _run_cells(row: Row) -> list[str]:
    def show(name: str) -> str:
        return short(row[name]) if row.get(name) is not None else "-"

    latency = "-"
    if row.get("latency_ms") is not None:
        latency = f"{row['latency_ms']:.3f} ({row['latency_low_ms']:.3f}-{row['latency_high_ms']:.3f})"
    return [
        row["label"],
        "n/a" if row.get("val_seen") else f"{100 * row['val_accuracy']:.2f}%",
        f"{100 * row['test_accuracy']:.2f}%" if "test_accuracy" in row else "-",
        show("params"),
        show("macs"),
        show("file_bytes"),
        latency,
        show("peak_ram_bytes"),
    ]


def _remark(row: Row) -> str:
    if row.get("rejection_reason"):
        return f"reverted: {row['rejection_reason']}"
    return str(row.get("note", "final model" if row.get("deployed") else ""))
