"""The steps of a compression with the gain and cost of each, as rows and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.results.prediction_statistics import interval_of

Row = Mapping[str, Any]

WATERFALL_HEAD = (
    "step", "file size (bytes)", "compressed size (bytes)", "latency, ms (90% interval)", "peak RAM",
    "val. accuracy (95% CI)", "drop (points)", "seconds", ""
)  # fmt: skip
_KEPT = ("file_bytes", "coded_bytes", "latency_ms", "latency_low_ms", "latency_high_ms", "latency_source",
         "peak_ram_bytes", "val_accuracy", "val_images", "precision")  # fmt: skip


def waterfall(reference: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for the original model and one for each step, accepted or rejected; ``tried`` has what was
    tried in its place. ``reference``: the metrics of the network as it was given."""
    rows = [{"label": "original", "accepted": True, "seconds": 0.0, "tried": [], **_facts(reference)}]
    for record in history:
        tried = list(record.get("tried", ()))
        chosen: Mapping[str, Any] = next((each for each in tried if each["folder"] == record["folder"]), {})
        rows.append(
            {
                "label": record["stage"],
                "rung": chosen.get("rung"),
                "accepted": record["accepted"],
                "rejection_reason": record["rejection_reason"],
                "change": chosen.get("change"),
                "seconds": record.get("seconds", 0.0),
                "tried": tried,
                **_facts(record["after"]),
            }
        )
    return rows


def _facts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    low, high = interval_of(metrics["val_accuracy"], metrics["val_images"])
    return {**{name: metrics[name] for name in _KEPT}, "val_accuracy_low": low, "val_accuracy_high": high}


def waterfall_cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of WATERFALL_HEAD."""
    return (
        str(row["label"]),
        f"{row['file_bytes']:,}",
        f"{row['coded_bytes']:,}",
        f"{row['latency_ms']:.3f} ({row['latency_low_ms']:.3f}-{row['latency_high_ms']:.3f})",
        f"{row['peak_ram_bytes']:,}",
        f"{100 * row['val_accuracy']:.2f}% ({100 * row['val_accuracy_low']:.1f}-{100 * row['val_accuracy_high']:.1f})",
        lost(row.get("change")),
        f"{row['seconds']:.1f}",
        step_note(row),
    )


def tried_lines(rows: Sequence[Row]) -> list[str]:
    """One line for each remedy that was tried for a step that lost too much accuracy, with its gain and cost."""
    lines = []
    for row in rows:
        if len(row["tried"]) < 2:
            continue
        for each in row["tried"]:
            result = "accepted" if each["accepted"] else f"rejected ({each['rejection_reason']})"
            lines.append(
                f"{row['tried'][0]['stage']}, {each['rung']}: accuracy {100 * each['val_accuracy']:.2f}%, drop "
                f"{lost(each['change'])} points, {each['coded_bytes']:,} bytes compressed, latency "
                f"{each['latency_ms']:.3f} ms, took {each['seconds']:.1f} s: {result}"
            )
    return lines


def lost(change: Mapping[str, Any] | None) -> str:
    """The points of accuracy lost, with the interval.

    >>> lost({"points": 0.5, "low": -0.25, "high": 1.25}), lost(None)
    ('0.50 (-0.25 to 1.25)', '-')
    """
    return "-" if change is None else f"{change['points']:.2f} ({change['low']:.2f} to {change['high']:.2f})"


def step_note(row: Row) -> str:
    """Why a step was rejected, or what was used in its place; empty otherwise."""
    if not row["accepted"]:
        return f"rejected: {row['rejection_reason']}"
    rung = row.get("rung")
    return "" if rung in (None, "as planned") else f"used {rung} instead"
