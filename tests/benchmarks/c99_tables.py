"""The tables of docs/benchmarks/c99.jsonl and trained_presets.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.benchmarks.lines import read
from tests.benchmarks.markdown import commits, table

_KINDS = ("1x1", "window", "depthwise", "fully connected", "whole")


def c99() -> str:
    """The section."""
    lines = read("c99")
    exact = [line for line in lines if ":" not in line["case"]]
    parts = [
        "## Plain C99\n\n`python tests/benchmarks/c99.py`; commits "
        f"{commits(lines)}.\n\n"
        "Each layer was fed the inputs of the numpy reference; its outputs in C (on the measuring machine) and in ONNX "
        "Runtime without optimization are compared with numpy. The arena of the program is compared with the smallest "
        "memory that must exist at once in the best order, overwritten inputs and saved rows included. Code and "
        "constants are those of a Cortex-M7 with `-Os`; the limit on constants is 1.1 bytes per weight plus 8 per channel.",
        _exact(exact),
        _instructions([line for line in lines if line["case"].startswith("instructions:")]),
        _speed([line for line in lines if line["case"].startswith("speed:")]),
    ]
    return "\n\n".join(part for part in parts if part)


def _exact(lines: Sequence[dict[str, Any]]) -> str:
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        _, _, side = line["case"].partition("@")
        groups.setdefault(f"presets, {side} pixels" if side else f"{line['case']}, 32 pixels", []).append(line)
    head = ("networks", "how many", "values of layers", "others in C", "others in ONNX Runtime", "by at most",
            "images that differ", "arena / least, at most", "largest code", "constants / limit, at most")  # fmt: skip
    return table(head, [(name, *_exact_row(found)) for name, found in groups.items()])


def _exact_row(lines: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
    values = sum(line["values"] for line in lines)
    of_ort = sum(line["ort_differs"] * line["values"] for line in lines)
    limits = [line["constant_bytes"] / (1.1 * line["weights"] + 8 * line["channels"]) for line in lines]
    return (
        len(lines),
        values,
        sum(line["c_differs"] for line in lines),
        f"{of_ort / values:.1e}",
        f"{max(line['ort_largest'] for line in lines)} step",
        f"{sum(line['images_differ'] for line in lines)} of {sum(line['images'] for line in lines)}",
        f"{max(line['arena_bytes'] / line['least_bytes'] for line in lines):.4f}",
        max(line["code_bytes"] for line in lines),
        f"{max(limits):.3f}",
    )


def _instructions(lines: Sequence[dict[str, Any]]) -> str:
    rows = []
    for line in lines:
        for machine, found in line["per_mac"].items():
            cells = [f"{found[kind]:.2f}" if kind in found else "" for kind in _KINDS]
            rows.append((line["case"].partition(":")[2], machine, *cells, line["code_bytes"][machine],
                         line["stack_bytes"][machine]))  # fmt: skip
    head = ("network", "processor", *_KINDS, "code bytes", "stack bytes")
    text = "Instructions for each multiply-accumulate, emulated, `-Os`, by kind of layer; exact everywhere."
    return f"{text}\n\n{table(head, rows)}" if rows else ""


def _speed(lines: Sequence[dict[str, Any]]) -> str:
    rows = []
    for line in lines:
        for flags in ("-O3", "-O3 -march=native"):
            found = line[flags]
            rows.append((line["case"].partition(":")[2], flags, found["ms"], found["emx_ms"],
                         f"{found['emx_over_ours']:.1f}", line["onnx_runtime_ms"]))  # fmt: skip
    head = ("network", "flags", "ms", "emx-onnx-cgen, ms", "emx-onnx-cgen / fitnas", "ONNX Runtime int8, ms")
    text = "One image on this machine, one thread, the same int8 file and compiler, in turn; processor time."
    return f"{text}\n\n{table(head, rows)}" if rows else ""


def trained_presets() -> str:
    """The section."""
    lines = read("trained_presets")
    rows = []
    for line in lines:
        host = line["machines"]["host"]
        arm = [m for name, m in line["machines"].items() if name != "host"]
        rows.append((
            line["case"], f"{line['fp32_accuracy']:.1%}", f"{line['int8_accuracy']:.1%}",
            f"{host['images_equal']} of {host['images']}", f"{line['disagreement']:.1%}",
            f"{line['runtime_disagreement']:.1%}", f"{sum(m['values'] - m['values_equal'] for m in arm)} of "
            f"{sum(m['values'] for m in arm)}", host["arena_bytes"],
        ))  # fmt: skip
    head = ("preset", "float32 accuracy", "int8 accuracy", "outputs in C that are the reference's",
            "C: different class than ONNX Runtime", "ONNX Runtime, optimized: different class",
            "different layer values on Cortex-M4 and M7", "arena bytes")  # fmt: skip
    return (
        "## Trained presets in C\n\n`python tests/benchmarks/trained_presets.py`: trained for 100 seconds on CIFAR-10, "
        f"or stored by `train_networks.py`; int8, 1,000 test images (commit {commits(lines)}). Classes are compared with those of "
        "ONNX Runtime without optimization; layers on the emulated processors are fed the inputs of the reference.\n\n"
        f"{table(head, rows)}"
    )
