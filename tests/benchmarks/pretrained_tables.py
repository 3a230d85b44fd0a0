"""The section of docs/benchmarks.md on networks that begin with pretrained weights."""

from __future__ import annotations

from statistics import mean

from tests.benchmarks.lines import read
from tests.benchmarks.markdown import commits, table

_NETWORK = ("side", "width", "depth")


def pretrained_start() -> str:
    lines = read("pretrained_start")
    if not lines:
        return ""
    rows = []
    for key in dict.fromkeys((*(line[name] for name in _NETWORK), line["start"], line["rate"]) for line in lines):
        alike = [line for line in lines if (*(line[name] for name in _NETWORK), line["start"], line["rate"]) == key]
        rows.append((*key[:3], f"{alike[0]['macs'] / 1e6:.1f}", *key[3:], len(alike),
                     f"{mean(line['test_accuracy'] for line in alike):.1%}"))  # fmt: skip
    first = lines[0]
    head = ("pixels", "width", "depth", "million MACs", "begins with", "learning rate", "seeds", "test accuracy")
    return (
        "## A part of a pretrained network\n\n`python tests/benchmarks/pretrained_start.py --data FOLDER`: networks cut "
        f"out of {first['preset']}, {first['epochs']} epochs on {first['images']:,} photographs of hands in ten "
        f"classes, one thread (commit {commits(lines)}).\n\n{table(head, sorted(rows))}"
    )
