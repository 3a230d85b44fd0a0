"""MLPerf Tiny's int8 networks as C99: arena, code and instructions, beside published cycles of other runtimes.

    python tests/benchmarks/c99_mlperf_tiny.py --models FOLDER [--minutes 10]

FOLDER holds the networks of https://github.com/mlcommons/tiny (Apache-2.0), converted from TensorFlow Lite by tf2onnx:
``resnet8_int8.onnx``, ``kws_int8.onnx`` (DS-CNN) and ``ad_int8.onnx`` (the autoencoder). Inputs are random, as they are in
``nas export --verify`` without images. The published figures and their sources: published/mlperf_tiny_cycles.csv.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress.c99 import verify, write_c99
from compress.c99.network_reader import read_network
from tests.benchmarks.lines import extend, latest_by_case
from tests.benchmarks.markdown import commits, table

NETWORKS = {"ic": "resnet8", "kws": "kws", "ad": "ad"}
_TITLES = {"ic": "ResNet-8 (ic)", "kws": "DS-CNN (kws)", "ad": "autoencoder (ad)"}
_PUBLISHED = Path(__file__).parent / "published" / "mlperf_tiny_cycles.csv"


def measure(models: Path, case: str, seed: int) -> dict[str, Any]:
    file = models / f"{NETWORKS[case]}_int8.onnx"
    network = read_network(file)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name, "c")
        write_c99(file, out)
        result = verify(out, file)
    runtime = result.runtime
    assert runtime is not None
    boards = {m.machine: m for m in result.machines if m.instructions_per_mac is not None}
    return {
        "macs": network.macs,
        "weights": network.weights,
        "arena_bytes": network.arena_bytes,
        "inputs": result.machines[0].images,
        "equal_numbers": runtime.equal,
        "mean_steps": runtime.mean_steps,
        "runtime_mean_steps": runtime.own_mean_steps,
        "code_bytes": {name: m.sizes.code for name, m in boards.items()},
        "constant_bytes": {name: m.sizes.constants for name, m in boards.items()},
        "stack_bytes": {name: m.stack_bytes for name, m in boards.items()},
        "instructions_per_mac": {name: round(m.instructions_per_mac or 0, 3) for name, m in boards.items()},
        "problems": list(result.problems),
    }


def section() -> str:
    """The section of docs/benchmarks.md, or nothing."""
    found = {case: lines[-1] for case, lines in latest_by_case("c99_mlperf_tiny").items()}
    if not found:
        return ""
    sizes = [
        (_TITLES[case], line["macs"], line["weights"], line["arena_bytes"], line["code_bytes"]["cortex-m4"],
         line["constant_bytes"]["cortex-m4"], line["stack_bytes"]["cortex-m4"],
         f"{100 * line['equal_numbers']:.2f} %", f"{line['mean_steps']:.3f} / {line['runtime_mean_steps']:.3f}")
        for case, line in found.items()
    ]  # fmt: skip
    head = ("network", "MACs", "weights", "arena, bytes", "code, bytes", "constants, bytes", "stack, bytes",
            "numbers equal to ONNX Runtime's nodes", "outputs differ by, steps (ours / ONNX Runtime's own)")  # fmt: skip
    ours = [
        ("fitnas, **instructions**, emulated", name, *(f"{found[c]['instructions_per_mac'][name]:.2f}" for c in found))
        for name in ("cortex-m4", "cortex-m7")
    ]
    text = (
        "## MLPerf Tiny as C99\n\n`python tests/benchmarks/c99_mlperf_tiny.py --models FOLDER`; commits "
        f"{commits(list(found.values()))}.\n\nThe int8 networks of MLPerf Tiny as TensorFlow Lite's converter and tf2onnx write them, on random inputs; "
        "sizes on an emulated Cortex-M4, `-Os`.\n\n"
    )
    below = (
        "\n\nFor each multiply-accumulate: our instructions under emulation, and the cycles that others published (latency times "
        "clock over MACs; MLPerf Tiny's closed division, CPUs alone). An instruction is not a cycle: a Cortex-M4 takes one or more cycles for each, "
        "so its row is a lower bound, and a Cortex-M7 can run two in one; no board has confirmed them. No result of TF-Lite Micro on a Cortex-M without an accelerator "
        "is among those of the rounds v0.7 to v1.3 that were collected here.\n\n"
    )
    columns = ("runtime", "processor", *(_TITLES[case] for case in found))
    return text + table(head, sizes) + below + table(columns, [*ours, *_published(list(found))])


def _published(cases: list[str]) -> list[tuple[str, ...]]:
    found: dict[tuple[str, str], dict[str, str]] = {}
    with _PUBLISHED.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["runtime"], row["processor"]), {})[row["benchmark"]] = row["cycles_per_mac"]
    return [(*key, *(f"{float(of[case]):.2f}" if case in of else "" for case in cases)) for key, of in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parsed = parser.parse_args()
    extend("c99_mlperf_tiny", [(case, 0) for case in NETWORKS], partial(measure, parsed.models), parsed.minutes)


if __name__ == "__main__":
    main()
