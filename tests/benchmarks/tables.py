"""Render docs/benchmarks.md from the lines in docs/benchmarks/."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.lines import FOLDER, ROOT, read


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def profile_speed() -> str:
    head = ("network", "Arch to Workload, ms", "Arch to Profile, ms", "fvcore, ms", "fvcore / Profile", "commit")
    rows = [
        (f"{line['case']} {line['seed']}", line["workload_ms"], line["profile_ms"], line["fvcore_ms"],
         line["fvcore_over_profile"], line["commit"])
        for line in read("profile_speed")
    ]  # fmt: skip
    return (
        "## Profiles per second\n\n`python tests/benchmarks/profile_speed.py`: medians of 15 rounds in turn, one network "
        f"a line.\n\n{table(head, rows)}"
    )


def budget_run() -> str:
    parts = ["## Winner and preset, trained as long\n"]
    head = ("network", "val accuracy", "test accuracy", "parameters", "MACs", "file bytes", "latency ms", "undone")
    for line in read("budget_run"):
        parts.append(
            f"`python tests/benchmarks/budget_run.py`: {line['case']}, latency {line['latency']}, time {line['time']}, "
            f"seed {line['seed']}, commit {line['commit']}, took {line['minutes']} min. {line['verdict']}.\n"
        )
        rows = [
            (row["label"], f"{row['val_accuracy']:.2%}", f"{row['test_accuracy']:.2%}", row["params"], row["macs"],
             row["file_bytes"], f"{row['latency_ms']:.3f}", row["why_undone"])
            for row in line["rows"]
        ]  # fmt: skip
        parts.append(table(head, rows) + "\n")
    return "\n".join(parts)


def channel_multiple() -> str:
    lines = read("channel_multiple")
    rows = []
    for precision in ("fp32", "int8"):
        for multiple in (8, 16):
            ratios = [line[f"{precision}_{multiple}"][0] for line in lines]
            faster = sum(line[f"{precision}_{multiple}"][2] < 0.98 for line in lines)
            left = median(line[f"left_{multiple}"] for line in lines)
            rows.append((precision, multiple, f"{left:.1%}", f"{median(ratios):.3f}", f"{faster} of {len(lines)}"))
    head = (
        "precision",
        "multiple",
        "channels left",
        "median time, pruned / unpruned",
        "faster by 2 % at the upper end",
    )
    commits = ", ".join(sorted({line["commit"] for line in lines}))
    return (
        "## Channels leave in multiples\n\n`python tests/benchmarks/channel_multiple.py`: random networks of the space "
        f"`mobilenet`, a fifth of the channels removed, both files run in turn (commit {commits}).\n\n{table(head, rows)}"
    )


def main() -> None:
    sections = [
        "# Benchmarks\n\nWritten by `make tables` from the lines in `docs/benchmarks/`.",
        profile_speed(),
        channel_multiple(),
        budget_run(),
    ]
    (ROOT / "docs" / "benchmarks.md").write_text("\n\n".join(sections).rstrip() + "\n")
    print(f"wrote docs/benchmarks.md from {len(list(FOLDER.glob('*.jsonl')))} files")


if __name__ == "__main__":
    main()
