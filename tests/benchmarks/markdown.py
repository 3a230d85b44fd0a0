"""What every section of docs/benchmarks.md is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def commits(lines: Iterable[Mapping[str, Any]]) -> str:
    """The commits that lines were measured at."""
    return ", ".join(dict.fromkeys(line["commit"] for line in lines))
