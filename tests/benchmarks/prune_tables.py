"""The table of prune_peers.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from tests.benchmarks.lines import read
from tests.benchmarks.markdown import commits, table

Line = dict[str, Any]

_HEAD = ("network", "method", "MACs left", "parameters", "epochs in all", "test accuracy", "time / unpruned (90 %)")


def prune_peers() -> str:
    """The section. Means are over the networks that every method has."""
    lines = list({line["case"]: line for line in read("prune_peers")}.values())  # the last of each
    if not lines:
        return ""
    rows = [(network, _shown(method), *_cells(line)) for line in lines for network, method in [_named(line)]]
    return (
        "## Half the MACs\n\n`python tests/benchmarks/prune_peers.py`: the same trained network, and as many further "
        f"epochs, with the same loop (commit {commits(lines)}), on {', '.join(sorted({line['device'] for line in lines}))}. Time on "
        "the CPU in float32, both files run in alternation. “With teacher”: the unpruned network is the teacher, as in "
        "fitnas. “From scratch”: the network that fitnas left, with new weights, trained for the epochs of both trainings.\n\n"
        f"{table(_HEAD, rows)}\n\n{table(_MEANS, _means(lines))}"
    )


_MEANS = ("method", "networks", "mean test accuracy", "mean time / unpruned")


def _named(line: Line) -> tuple[str, str]:
    network, method = line["case"].split(": ", 1)
    return network, method


def _shown(method: str) -> str:
    """A method of the lines as the page names it."""
    return method.replace("not taught", "without teacher").replace("taught", "with teacher")


def _cells(line: Line) -> tuple[str, ...]:
    ratio, low, high = line["latency_over_unpruned"]
    return (
        f"{line['macs_share']:.1%}", f"{line['params']:,}", f"{line['epochs']:.1f}", f"{line['test_accuracy']:.2%}",
        f"{ratio:.3f} ({low:.3f} to {high:.3f})",
    )  # fmt: skip


def _means(lines: Sequence[Line]) -> list[tuple[Any, ...]]:
    by_method: dict[str, dict[str, Line]] = {}
    for line in lines:
        network, method = _named(line)
        by_method.setdefault(method, {})[network] = line
    shared = set.intersection(*(set(found) for found in by_method.values()))
    return [
        (_shown(method), len(shared), f"{mean(found[n]['test_accuracy'] for n in shared):.2%}",
         f"{mean(found[n]['latency_over_unpruned'][0] for n in shared):.3f}")
        for method, found in by_method.items() if shared
    ]  # fmt: skip
