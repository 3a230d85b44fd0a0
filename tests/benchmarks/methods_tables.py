"""The tables of docs/benchmarks/methods.jsonl and training_speed.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.lines import read
from tests.benchmarks.markdown import commits, table

Line = Mapping[str, Any]

# What is usual of each: file or coded bytes as a share, points lost, and what else is said.
_USUAL = {
    "separable": "8–9× less compute",
    "half of the channels": "2–5× smaller and faster",
    "half of the channels, Taylor": "2–5× smaller and faster",
    "80 % zeros": "3–10× smaller coded, < 1 point",
    "90 % zeros": "3–10× smaller coded, < 1 point",
    "90 % zeros, longer": "3–10× smaller coded, < 1 point",
    "fp16": "0.5× the size, no loss",
    "int8": "0.25× the size, 0.1–1 point",
    "int8, trained": "0.25× the size, 0.1–1 point",
    "int4": "0.125× the size, 1–5 points",
    "int4, trained": "0.125× the size, 1–5 points",
    "binary": "0.03× the size, 10–30 points",
}


def methods() -> str:
    """The section."""
    found = read("methods")
    lines = {line["case"]: line for line in found if line["network"] == found[-1]["network"]}
    start = lines["network"]
    order = [*(case for case in lines if case not in _USUAL), *(case for case in _USUAL if case in lines)]
    rows = [_row(lines[case], start) for case in order]
    head = ("method", "accuracy", "points lost", "to the companion", "file", "coded", "MACs of the blocks", "time",
            "usually reported")  # fmt: skip
    return (
        "## Accuracy and size of each method\n\n`python tests/benchmarks/methods.py`: one network of 3×3 convolutions, "
        f"{start['macs'] / 1e6:.1f} M MACs, {start['params']:,} parameters, trained on CIFAR-10 (as JPEG) for "
        f"{start['training']['epochs']:.0f} epochs; accuracy of the ONNX file on {start['test_images']:,} test images in "
        "ONNX Runtime, with the 90 % interval of the loss (below zero: a gain). The companion is the network itself, trained for "
        "as long with the same recipe and teacher, or unchanged if the method trains nothing. File bytes, .fnz bytes, "
        "MACs of all blocks (without stem and classifier) and time (both files run in alternation) are relative to the "
        f"network (commit {commits(lines.values())}).\n\n"
        f"{table(head, rows)}"
    )


def _row(line: Line, start: Line) -> tuple[Any, ...]:
    files = [line["bytes"][name] / start["bytes"]["onnx"] for name in ("onnx", "fnz")]
    time, low, high = line["latency_over_network"]
    return (
        line["case"],
        f"{line['test_accuracy']:.2%}",
        _points(line["points_lost"]),
        _points(line["points_lost_to_companion"]),
        *(f"{share:.3f}×" for share in files),
        f"{line['macs_of_blocks'] / start['macs_of_blocks']:.3f}×",
        f"{time:.2f}× ({low:.2f}–{high:.2f})",
        _USUAL.get(line["case"]),
    )


def _points(found: Sequence[float] | None) -> str | None:
    return None if found is None else f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"


def training_speed() -> str:
    """The section."""
    lines = read("training_speed")
    plain = [line for line in lines if "ours_over_plain" in line]
    rows = [
        (line["case"], line["images_per_second"], line["plain_images_per_second"],
         "{:.3f} ({:.3f} to {:.3f})".format(*line["ours_over_plain"]))
        for line in plain
    ]  # fmt: skip
    head = ("training", "images/s", "plain loop, images/s", "ours / plain")
    return (
        "## Images per second in training\n\n`python tests/benchmarks/training_speed.py`: one thread, bfloat16, compared "
        "with a plain PyTorch loop with the same batches, augmentation, loss and optimizer, in alternation; images per second "
        "of processor time, medians, with the 90 % "
        f"interval (commit {commits(plain)}).\n\n{table(head, rows)}\n\n{_training_pace(lines)}"
    )


def _training_pace(lines: Sequence[dict[str, Any]]) -> str:
    """The last line of each case."""
    last = {line["case"]: line for line in lines if "ours_over_bare" in line}
    rows = [
        (case, line["load_before"], line["images_per_second"], *(f"{rate:.0f}" for rate in line["bare"].values()),
         "bfloat16" if line["bfloat16"] else "float32", line["mean_threads"],
         "{:.3f} ({:.3f} to {:.3f})".format(*line["ours_over_bare"]))
        for case, line in last.items()
    ]  # fmt: skip
    head = ("load: network", "load before", "images/s", "bare loop, one thread", "all threads", "its format",
            "our threads, mean", "ours / the faster bare loop")  # fmt: skip
    return (
        "The same command, in wall-clock time: trainings with a time limit, 48×48 pixels in batches of 32, compared with a bare "
        "loop that repeats forward, backward and step on one batch (`tests/benchmarks/training_pace.py`); two cores, “as "
        "found” with the load that other processes caused, and “busy” with one more busy process; medians over rounds, with "
        f"the 90 % interval (commit {commits(list(last.values()))}).\n\n{table(head, rows)}"
    )
