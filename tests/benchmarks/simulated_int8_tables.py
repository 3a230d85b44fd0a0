"""The figures and tables of docs/benchmarks/simulated_int8.jsonl."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from tests.benchmarks.lines import read
from tests.benchmarks.markdown import commits, table

NAME = "simulated_int8"
GUESSES = ("fragility", "depthwise", "curved", "gates")
LIMITS: dict[str, Callable[[dict[str, Any]], float]] = {
    "estimated latency": lambda line: float(line["estimated_ms"]["int8"]),
    "flash": lambda line: float(line["flash_bytes"]),
}

Lines = Sequence[dict[str, Any]]


def simulated_int8() -> str:
    """The section."""
    lines = read(NAME)
    found = summary(lines)
    rows = [(row["networks"], row["limit"], row["limits"], row["other_picks"], f"{row['by_fp32']:.1%}",
             f"{row['by_int8']:.1%}") for row in found["picked"]]  # fmt: skip
    head = ("networks", "limit on", "limits", "other picks", "int8 accuracy of picks by fp32", "of picks by int8")
    shares = ("agreement", "runtime_agreement", "equal_logits", "runtime_equal_logits")
    compared = [
        (name, *(f"{100 * found[share][kind]:.2f} %" for share in shares))
        for name, kind in (("worst network", "least"), ("mean", "mean"))
    ]
    agreement = table(
        ("", "same class", "unoptimized: same class", "equal logits", "unoptimized: equal logits"), compared
    )
    lost, order = found["points_lost"], found["order"]
    return f"""## Int8, simulated

`python tests/benchmarks/simulated_int8.py`: {found["networks"]} random networks of all spaces, trained for 40 seconds on
CIFAR-10, {lines[0]["images"]} test images each (commit {commits(lines)}). The simulation and ONNX Runtime's unoptimized graph,
compared with the exported file in ONNX Runtime:

{agreement}

Speed with one thread (medians): {found["speed_of_the_file"]} times that of the file in ONNX Runtime, {found["speed_of_float"]}
times that of the float network in PyTorch. Points of accuracy lost in int8: {lost[0]} at least, {lost[1]} in the median, {lost[3]}
at most. Rank correlation of the loss with properties known before training: {_said(found["spearman"])}.

Both accuracies rank the networks similarly: rank correlation {order["spearman"]}, {order["changed_pairs"]:.1%} of all pairs
change places. The table compares a search that scores candidates in float32 with one that scores them in int8. The int8 cost of each
network is used as a limit in turn; among the networks within it, the best one on half of the images is picked, and its int8 accuracy
is taken from the other half:

{table(head, rows)}"""


def summary(lines: Lines | None = None) -> dict[str, Any]:
    """The figures over all lines: agreement, speed, how well each guess ranks the losses, and what is picked."""
    lines = read(NAME) if lines is None else lines
    lost = [100 * (line["fp32_accuracy"] - line["int8_accuracy"]) for line in lines]
    speeds = [line["images_per_second"] for line in lines]
    spaces = {space: [line for line in lines if line["case"] == space] for space in _spaces(lines)}
    shares = ("agreement", "runtime_agreement", "equal_logits", "runtime_equal_logits")
    return {
        "networks": len(lines),
        **{name: _share(lines, name) for name in shares},
        "points_lost": [round(float(q), 2) for q in np.quantile(lost, (0, 0.5, 0.9, 1))],
        "speed_of_the_file": round(statistics.median(s["simulated"] / s["file"] for s in speeds), 2),
        "speed_of_float": round(statistics.median(s["simulated"] / s["float"] for s in speeds), 2),
        "spearman": {name: round(float(spearmanr([x[name] for x in lines], lost)[0]), 2) for name in GUESSES},
        "order": _order(lines),
        "picked": [picks(name, found, kind) for name, found in ({"all": lines} | spaces).items() for kind in LIMITS],
    }


def picks(name: str, lines: Lines, kind: str) -> dict[str, Any]:
    """How often the two scores pick another network within a limit, and the mean int8 accuracy of either's picks.

    Both choose by the first half of the images, and are judged by the second.
    """
    cost = LIMITS[kind]
    worth: dict[str, list[float]] = {"fp32": [], "int8": []}
    others = 0
    for limit in map(cost, lines):
        within = [line for line in lines if cost(line) <= limit]
        picked = {score: max(within, key=lambda line, of=score: line[f"{of}_halves"][0]) for score in worth}
        others += picked["fp32"] is not picked["int8"]
        for score, line in picked.items():
            worth[score].append(line["int8_halves"][1])
    means = {f"by_{score}": round(statistics.fmean(values), 4) for score, values in worth.items()}
    return {"networks": name, "limit": kind, "limits": len(lines), "other_picks": others, **means}


def _order(lines: Lines) -> dict[str, float]:
    """How alike both accuracies order the networks: rank correlation, and the share of pairs that change places."""
    fp32, int8 = (np.array([line[f"{score}_accuracy"] for line in lines]) for score in ("fp32", "int8"))
    i, j = np.triu_indices(len(lines), 1)
    changed = (fp32[i] - fp32[j]) * (int8[i] - int8[j]) < 0
    return {"spearman": round(float(spearmanr(fp32, int8)[0]), 4), "changed_pairs": round(float(changed.mean()), 4)}


def _spaces(lines: Lines) -> list[str]:
    return list(dict.fromkeys(line["case"] for line in lines))


def _share(lines: Lines, name: str) -> dict[str, float]:
    values = [line[name] for line in lines]
    return {"least": min(values), "mean": round(statistics.fmean(values), 5)}


def _said(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
