"""The tables of deep_compression.jsonl, encode_speed.jsonl, promise.jsonl and ptq.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import mean, median
from typing import Any

from tests.benchmarks.lines import latest
from tests.benchmarks.markdown import commits, table

Line = dict[str, Any]

_NAMES = {"lenet-300-100": "LeNet-300-100", "lenet-5": "LeNet-5"}
_PAPER = {"lenet-300-100": ("1.64%", "1.58%", "40"), "lenet-5": ("0.80%", "0.74%", "39")}
_STAGES = {
    "baseline": "trained for as long, float32",
    "pruned": "pruned: 32 bits per weight, positions as in the paper",
    "shared": "shared values, positions as in the paper",
    "coded": "coded, the .fnz file",
}


def promise() -> str:
    """Whether at most one point was lost on the test images."""
    lines = list(latest("promise").values())
    if not lines:
        return ""
    rows = [
        (
            case,
            len(of_case),
            sum(line["kept"] for line in of_case),
            f"{mean(line['test_points_lost'] for line in of_case):.2f}",
            f"{max(line['test_points_lost'] for line in of_case):.2f}",
            f"{mean(line['reference_test_accuracy'] for line in of_case):.2%}",
            f"{median(line['coded_bytes'] for line in of_case):.0f}",
            f"{median(line['share'] for line in of_case):.3f}",
        )
        for case, of_case in _grouped(lines, lambda line: line["case"]).items()
    ]
    head = ("images", "seeds", "promise kept", "points lost, mean", "largest", "accuracy as given", "coded bytes, median",
            "share of the float file, median")  # fmt: skip
    return (
        "## The promise of `nas compress`\n\n`python tests/benchmarks/promise.py`: ResNet-8 trained on each seed's split, "
        "compressed by the usual plan (pruning, zeros, int8, coding), or the best of those tried, with at most one point "
        "lost, judged on validation images. Kept: at most one point lost on the test images, which no decision has seen "
        f"(commit {commits(lines)}).\n\n{table(head, rows)}"
    )


def deep_compression() -> str:
    """The section."""
    lines = list(latest("deep_compression").values())
    if not lines:
        return ""
    parts = [
        "## Deep Compression's table\n\n`python tests/benchmarks/deep_compression.py`; "
        f"commit {commits(lines)}. MNIST, settings chosen on 5,000 of the training images, means over "
        "the seeds (largest error or smallest ratio in parentheses). The baseline is trained from the same start for "
        "as many epochs, with the same recipe and teacher. All files were run in ONNX Runtime, the coded one after "
        "decoding."
    ]
    for case, of_case in _grouped(lines, lambda line: line["case"]).items():
        parts += [_stages(case, of_case), _layers(of_case)]
    return "\n\n".join(parts)


def _stages(case: str, lines: Sequence[Line]) -> str:
    rows = []
    for stage, text in _STAGES.items():
        errors = [line["test_wrong"][stage] / line["test_images"] for line in lines]
        ratios = [line["bytes"]["baseline"] / line["bytes"][stage] for line in lines]
        size = mean(line["bytes"][stage] for line in lines)
        rows.append(
            (text, f"{mean(errors):.2%} ({max(errors):.2%})", f"{size:.0f}", f"{mean(ratios):.1f} ({min(ratios):.1f})")
        )
    for packer in ("gzip", "xz"):
        size = mean(line["bytes"][packer] for line in lines)
        ratio = mean(line["bytes"]["baseline"] / line["bytes"][packer] for line in lines)
        rows.append((f"the same ONNX file under {packer} -9", "", f"{size:.0f}", f"{ratio:.1f}"))
    before, after, ratio = _PAPER[case]
    rows.append(("the paper, before and after", f"{before}, {after}", "", ratio))
    head = (f"{_NAMES[case]}, {lines[0]['epochs']} epochs, seeds: {len(lines)}", "test error", "bytes", "times smaller")
    return table(head, rows)


def _layers(lines: Sequence[Line]) -> str:
    found = {name: [line["layers"][name] for line in lines] for name in lines[0]["layers"]}
    found["all"] = [_sums(line["layers"].values()) for line in lines]
    head = ("layer", "weights", "kept", "values", "bits of a kept one's value, shared", "coded", "of its place, shared",
            "coded", "bytes of float32's, shared", "coded")  # fmt: skip
    return table(head, [(name, *_layer(name, layers)) for name, layers in found.items()])


def _sums(layers: Iterable[dict[str, int]]) -> dict[str, int]:
    rows = list(layers)
    return {key: sum(row[key] for row in rows) for key in rows[0]}


def _layer(name: str, layers: Sequence[dict[str, int]]) -> tuple[str, ...]:
    total = _sums(layers)
    kept, weights = total["kept"], total["weights"]
    bits = [total[f"{coded}{what}_bits"] for what in ("value", "place") for coded in ("", "coded_")]
    return (
        str(weights // len(layers)),
        f"{kept / weights:.1%}",
        "" if name == "all" else str(max(layer["values"] for layer in layers)),
        *(f"{b / kept:.1f}" for b in bits),
        *(f"{(bits[i] + bits[i + 2]) / (32 * weights):.2%}" for i in range(2)),
    )


def encode_speed() -> str:
    lines = list(latest("encode_speed").values())
    rows = []
    for case, of_case in _grouped(lines, lambda line: line["case"]).items():
        speeds = [f"{min(line[f'{name}_mb_per_s'] for line in of_case):.0f}" for name in ("encode", "decode")]
        known = [[line[f"{n}_bytes"] for line in of_case if f"{n}_bytes" in line] for n in _PACKERS]
        rows.append((case, *speeds, *(f"{mean(each):.0f}" if each else "" for each in known)))
    head = (
        "network",
        "MB of float32 weights encoded per second",
        "decoded",
        *(f"bytes, {n}" for n in _PACKERS.values()),
    )
    return (
        f"## Coding\n\n`python tests/benchmarks/encode_speed.py`; commit {commits(lines)}. Random weights, one thread; the "
        f"slowest of {len({line['seed'] for line in lines})} files each (the median of seven runs).\n\n{table(head, rows)}"
    )


_PACKERS = {"onnx": "ONNX", "gzip": "gzip -9", "xz": "xz -9", "fnz": ".fnz", "nncodec": "weights by nncodec"}


def ptq() -> str:
    lines = list(latest("ptq").values())
    if not lines:
        return ""
    rows = []
    for network, of_network in _grouped(lines, lambda line: line["case"].partition(": ")[0]).items():
        for line in of_network:
            low, high = line["points_lost_90"]
            over = line["latency_over_float"]
            rows.append((network, line["case"].partition(": ")[2], f"{line['float_accuracy']:.2%}",
                         f"{line['int8_accuracy']:.2%}", f"{line['points_lost']:.2f} ({low:.2f} to {high:.2f})",
                         f"{line['latency_ms']:.3f}", over and f"{over:.2f}"))  # fmt: skip
    head = ("network", "method", "float32", "int8", "points lost (90 %)", "latency ms", "time, int8 / float32")
    of_method = _grouped(lines, lambda line: line["case"].partition(": ")[2])
    return (
        f"## Int8 after training\n\n`python tests/benchmarks/ptq.py`; commit {commits(lines)}. The same trained networks, "
        "1,024 training images and runtime for all; all test images. NNCF's files mix signed and unsigned integers; a "
        "convolution that reads one kind and writes the other runs in float in ONNX Runtime, as its saved graph shows. "
        "“fitnas mixed” is `MixedPrecision`: the layers that lose most stay in float until at most one point is lost.\n\n"
        f"{table(head, rows)}\n\n{table(_ALL, [_of_all(name, found) for name, found in of_method.items()])}"
    )


_ALL = ("method", "networks", "most points lost", "mean", "mean time, int8 / float32")


def _of_all(name: str, lines: Sequence[Line]) -> tuple[Any, ...]:
    lost = [line["points_lost"] for line in lines]
    time = mean(line["latency_over_float"] for line in lines)
    return (name, len(lines), f"{max(lost):.2f}", f"{mean(lost):.2f}", f"{time:.2f}")


def _grouped(lines: Iterable[Line], key: Callable[[Line], str]) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(key(line), []).append(line)
    return found
