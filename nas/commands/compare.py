"""``nas compare``: run two files on the same images."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.atomic_files import json_text
from nas.commands.output.text_table import aligned, cut, printable, wrapped
from nas.errors import user_input
from nas.results.compared_files import read_pair

_NAME_WIDTH = 48
_WORST = 5  # layers that are listed
Facts = Mapping[str, Any]


def run_compare(parsed: Namespace) -> None:
    """Print what the command line asks for.

    Raises:
        InputError: no such file, data that do not fit, or options that do not go together.
    """
    with user_input():
        pair = read_pair(parsed.a, parsed.b, parsed.data, parsed.seed)
        facts = {
            **dict(zip("ab", pair.labels, strict=True)),
            "data": pair.data,
            "seed": pair.seed,
            **pair.compared(parsed.threshold).to_dict(),
        }
        if parsed.measure:
            facts["latency"] = _measured(pair.files, parsed.device)
    print(json_text(facts) if parsed.json else "\n".join(lines(facts)))


def lines(facts: Mapping[str, Any]) -> list[str]:
    """The facts as a table and sentences.

    >>> none = {"layers": [], "diverges_at": None, "threshold": 0.1, "agreement": 1.0, "images": 2}
    >>> none |= {"a": "a.onnx", "b": "b.onnx", "accuracies": (1.0, 0.5), "file_bytes": (4000, 1000)}
    >>> lines(none | {"largest_difference": 0.5, "largest_logit": 2.0, "snr_db": 9})[1:3]
    ['A: a.onnx   100.00%  4,000', 'B: b.onnx    50.00%  1,000']
    """
    right = ["no labels"] * 2 if facts["accuracies"] is None else [f"{100 * each:.2f}%" for each in facts["accuracies"]]
    rows = [
        [f"{letter}: {cut(printable(facts[letter.lower()]), _NAME_WIDTH)}", each, f"{size:,}"]
        for letter, each, size in zip("AB", right, facts["file_bytes"], strict=True)
    ]
    head = ["file", "accuracy", "bytes"]
    if "latency" in facts:
        head.append("ms")
        for row, ms in zip(rows, facts["latency"]["ms"], strict=True):
            row.append(f"{ms:.4f}")
    shown = [
        *aligned(head, rows, left=1, fill=0),
        *(line for text in _output_lines(facts) for line in wrapped(text, further="  ")),
        *_layer_lines(facts),
    ]
    if "latency" in facts:
        ratio, low, high = facts["latency"]["ratio"]
        shown += wrapped(
            f"B takes {ratio:.3f} times as long as A (90% interval {low:.3f} to {high:.3f}), interleaved measurements"
        )
    return shown


def _output_lines(facts: Facts) -> list[str]:
    """How far the outputs are apart: of a classifier in one line, of other networks a line for each output."""
    if facts["agreement"] is not None:
        return [
            f"same prediction for {100 * facts['agreement']:.2f}% of {facts['images']} test images",
            f"largest logit difference: {facts['largest_difference']:.4g} "
            f"(largest logit of A: {facts['largest_logit']:.4g}; signal-to-noise ratio {facts['snr_db']:.1f} dB)",
        ]
    rows = [
        f"output {cut(printable(name), _NAME_WIDTH)}: largest difference {each['largest_difference']:.4g} (largest "
        f"value of A: {each['largest']:.4g}; signal-to-noise ratio {each['snr_db']:.1f} dB)"
        for name, each in facts["outputs"].items()
    ]
    return [f"outputs for {facts['images']} test inputs (not class scores):", *rows]


def _layer_lines(facts: Mapping[str, Any]) -> list[str]:
    layers, found = facts["layers"], facts["diverges_at"]
    if not layers:
        return ["layers: the two files have no tensor of the same name and shape"]
    limit = f"{facts['threshold']:g}"
    if found is None:
        worst = max(layers, key=lambda layer: float(layer["error"]))
        name = printable(worst["name"])
        return wrapped(
            f"layers: no relative error above {limit} in {len(layers)} layers; largest: {worst['error']:.2g} at {name}",
            further="  ",
        )
    at = next(i for i, layer in enumerate(layers) if layer["name"] == found["name"])
    rows = [
        [printable(layer["name"]), printable(layer["kind"]), f"{layer['error']:.2g}"]
        for layer in layers[max(0, at - 2) : at + _WORST]
    ]
    first = f"layers: {printable(found['name'])} ({printable(found['kind'])}) is the first whose relative error exceeds"
    said = wrapped(f"{first} {limit} (layer {at + 1} of {len(layers)})", further="  ")
    return [*said, *aligned(["", "", "error"], rows, left=2, fill=0)]


def _measured(files: Sequence[bytes], device_name: str) -> dict[str, Any]:
    from hw_profiles import load_device
    from hw_profiles.measurement.latency_measurement import compare, measure

    device = load_device(device_name)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("a.onnx", "b.onnx")]
        for path, file in zip(paths, files, strict=True):
            path.write_bytes(file)
        ratio = compare(paths[1], paths[0], device)
        each = [measure(path, device) for path in paths]
    return {
        "device": device.name,
        "ratio": list(ratio),
        "ms": [latency.ms for latency in each],
        "low_ms": [latency.low_ms for latency in each],
        "high_ms": [latency.high_ms for latency in each],
    }
