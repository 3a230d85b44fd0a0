"""Render docs/benchmarks.md from the lines in docs/benchmarks/."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks import c99_mlperf_tiny
from tests.benchmarks.any_network_tables import onnx_files, timm_table
from tests.benchmarks.automatic_plan import automatic_plan
from tests.benchmarks.boards import boards
from tests.benchmarks.c99_tables import c99, trained_presets
from tests.benchmarks.cell_latencies import cell_latencies
from tests.benchmarks.compression_tables import deep_compression, encode_speed, promise, ptq
from tests.benchmarks.device_tables import few_points, held_out_families
from tests.benchmarks.equal_latency import equal_latency
from tests.benchmarks.few_images import few_images
from tests.benchmarks.final_training import final_training
from tests.benchmarks.imagenet_int8 import imagenet_int8
from tests.benchmarks.imagenet_smallest import imagenet_smallest
from tests.benchmarks.kit_threads import kit_threads
from tests.benchmarks.ladder import ladder
from tests.benchmarks.lines import FOLDER, ROOT, read
from tests.benchmarks.markdown import commits, table
from tests.benchmarks.methods_tables import methods, training_speed
from tests.benchmarks.photographs import photographs
from tests.benchmarks.pretrained_tables import pretrained_start
from tests.benchmarks.prune_tables import prune_peers
from tests.benchmarks.search_tables import halving, search_overhead, search_samplers, search_workers
from tests.benchmarks.simulated_int8_tables import simulated_int8
from tests.benchmarks.two_hundred import two_hundred


def profile_speed() -> str:
    lines = [line for line in read("profile_speed") if "cold_ms" in line]
    rows = []
    for space in dict.fromkeys(line["case"] for line in lines):
        of_space = [line for line in lines if line["case"] == space]
        rows.append((space, len(of_space), *(f"{1000 / mean(x[f'{n}_ms'] for x in of_space):.0f}" for n in _SPEEDS),
                     *(f"{median(x[f'fvcore_over_{n}'] for x in of_space):.0f}" for n in _SPEEDS)))  # fmt: skip
    head = ("space", "networks", "per second, first time", "per second, one choice changed",
            "time of fvcore / profile, first time", "one choice changed")  # fmt: skip
    return (
        "## Profiles per second\n\n`python tests/benchmarks/profile_speed.py`: from an Arch to its int8 Profile, on one "
        "core. A round is all networks by fvcore, then all profiles; ratios are medians over networks; each mutation is "
        f"another network (commit {commits(lines)}).\n\n{table(head, rows)}"
    )


_SPEEDS = ("cold", "changed")


def predictor() -> str:
    lines = read("predictor")
    rows = []
    for name, predicted in _predictions(lines).items():
        cells = [name]
        for precision in ("fp32", "int8"):
            ratios = [
                p / x["measured_ms"] for p, x in zip(predicted, lines, strict=True) if x["precision"] == precision
            ]
            cells += [f"{mean(abs(r - 1) <= 0.1 for r in ratios):.0%}", f"{mean(abs(r - 1) for r in ratios):.1%}"]
        rows.append((*cells, f"{spearmanr(predicted, [x['measured_ms'] for x in lines])[0]:.3f}"))
    held = mean(x["low_ms"] <= x["measured_ms"] <= x["high_ms"] for x in lines)
    head = ("predictor", "fp32: within 10 %", "mean error", "int8: within 10 %", "mean error", "rank correlation")
    return (
        f"## Latency, predicted\n\n`python tests/benchmarks/predictor.py`: {len(lines)} networks of all spaces at 32 to "
        "224 pixels, half of them pruned to arbitrary widths, none of them used for the fit; error relative to a first measurement "
        f"(commit {commits(lines)}). The 90 % interval contained {held:.0%} of them. The simpler predictors were "
        "fitted to four fifths of these networks, five times in turn, so they had an advantage.\n\n"
        f"{table(head, rows)}"
    )


def _predictions(lines: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    return {
        "a second measurement": [line["again_ms"] for line in lines],
        "fitnas": [line["estimated_ms"] for line in lines],
        "each kind of operation by MACs and bytes, unfused": _fitted(lines, "kinds"),
        "MACs and bytes of the whole": _fitted(lines, "bytes"),
        "MACs of the whole": _fitted(lines, "macs"),
    }


def _fitted(lines: Sequence[dict[str, Any]], by: str) -> list[float]:
    """Each line predicted by non-negative least squares of relative errors on four fifths of its precision's lines."""
    predicted = [0.0] * len(lines)
    for precision in ("fp32", "int8"):
        mine = [i for i, line in enumerate(lines) if line["precision"] == precision]
        kinds = sorted({kind for i in mine for kind in lines[i]["unfused"]})
        features = np.array([_features(lines[i]["unfused"], kinds, by) for i in mine])
        measured = np.array([lines[i]["measured_ms"] for i in mine])
        fold = np.random.default_rng(0).permutation(len(mine)) % 5
        for part in range(5):
            known, asked = fold != part, fold == part
            prices = nnls(features[known] / measured[known, None], np.ones(known.sum()))[0]
            for j in np.flatnonzero(asked):
                predicted[mine[j]] = float(features[j] @ prices)
    return predicted


def _features(sums: dict[str, list[float]], kinds: Sequence[str], by: str) -> list[float]:
    if by == "kinds":
        return [1.0, *(value for kind in kinds for value in sums.get(kind, (0.0, 0.0, 0.0)))]
    _, macs, moved = (sum(values) for values in zip(*sums.values(), strict=True))
    return [1.0, macs, moved] if by == "bytes" else [1.0, macs]


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
        "at least 2 % faster at the upper end of the interval",
    )
    return (
        "## Channels removed in multiples\n\n`python tests/benchmarks/channel_multiple.py`: random networks of the space "
        f"`mobilenet`, a fifth of the channels removed, both files run in alternation (commit {commits(lines)}).\n\n{table(head, rows)}"
    )


_SECTIONS = (
    held_out_families, few_points, cell_latencies, kit_threads, simulated_int8, timm_table, onnx_files, c99, c99_mlperf_tiny.section, boards, trained_presets, deep_compression, promise, automatic_plan, two_hundred, methods, ptq, ladder, imagenet_int8, imagenet_smallest, prune_peers, encode_speed, training_speed,
    equal_latency, final_training, photographs, few_images, pretrained_start, search_samplers, halving, search_workers, search_overhead,
)  # fmt: skip


def main() -> None:
    sections = [
        "# Benchmarks\n\n`make tables` writes this page from the lines in `docs/benchmarks/`.",
        predictor(),
        profile_speed(),
        channel_multiple(),
        *(section() for section in _SECTIONS),
    ]
    (ROOT / "docs" / "benchmarks.md").write_text("\n\n".join(filter(None, sections)).rstrip() + "\n")
    print(f"wrote docs/benchmarks.md from {len(list(FOLDER.glob('*.jsonl')))} files")


if __name__ == "__main__":
    main()
