"""From images to a verified C99 program for a microcontroller: whole runs.

    python tests/benchmarks/boards.py --data FOLDER --minutes 30 [--only mnist] [--time 5min] [--out runs/boards]

``FOLDER`` holds ``mnist.npz`` and ``cifar10.npz`` (x_train, y_train, x_test, y_test); the digits come with scikit-learn.
Each line: accuracy of the deployed integers on the test images and of the float network, RAM and flash as compiled, where
the program was verified, its instructions under emulation, and the latency estimated from them. A run that was
interrupted goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
import nas
from tests.benchmarks.lines import extend, read
from tests.benchmarks.markdown import commits, table

NAME = "boards"
CASES: dict[str, dict[str, str]] = {
    "digits, STM32F746": {
        "data": "digits",
        "device": "stm32f746",
        "ram": "256kB",
        "flash": "512kB",
        "latency": "100ms",
    },
    "mnist, Cortex-M4": {"data": "mnist.npz", "device": "stm32l4r5", "ram": "64kB", "flash": "128kB"},
    "cifar10, Cortex-M7": {"data": "cifar10.npz", "device": "stm32f746", "ram": "256kB", "flash": "512kB"},
    "mnist, RP2040": {"data": "mnist.npz", "device": "rp2040", "ram": "64kB", "flash": "128kB", "latency": "500ms"},
}
_KEPT = (
    "verified_on", "not_run", "arena_bytes", "stack_bytes", "code_bytes", "constant_bytes", "instructions", "processor",
)  # fmt: skip


def measure(case: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    asked = dict(CASES[case])
    if asked["data"].endswith(".npz"):
        asked["data"] = str(_some_images(given.data / asked["data"], given.images, given.out))
    out = given.out / f"{case.replace(', ', '_').replace(' ', '_')}_{seed}"
    metrics = nas.run(**asked, time=given.time, seed=seed, out=out).metrics
    winner = next(row for row in metrics["rows"] if row["role"] == "winner")
    final = metrics["final"]
    return {
        **CASES[case],
        "time": given.time,
        "train_images": given.images,
        "seconds": round(metrics["seconds"], 1),
        "budget_met": metrics["budget_met"],
        "test_accuracy": final["test_accuracy"],
        "float_accuracy": winner["test_accuracy"],
        "test_images": final["test_images"],
        "macs": final["macs"],
        "peak_ram_bytes": final["peak_ram_bytes"],
        "flash_bytes": final["flash_bytes"],
        "latency_ms": [final["latency_ms"], final["latency_low_ms"], final["latency_high_ms"]],
        "trials": metrics["trials"],
        **{name: metrics["c99"].get(name) for name in _KEPT},
    }


def _some_images(path: Path, count: int | None, folder: Path) -> Path:
    """The file with so many of its training images, evenly from the first to the last, or as it is."""
    if count is None:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(path) as packed:
        arrays = {name: packed[name] for name in packed.files}
    step = max(1, len(arrays["y_train"]) // count)
    arrays |= {name: arrays[name][::step][:count] for name in ("x_train", "y_train")}
    made = folder / f"{path.stem}_{count}.npz"
    np.savez(made, **arrays)
    return made


def boards() -> str:
    """The section."""
    lines = read(NAME)
    rows = []
    for line in lines:
        latency = "{:.3g} ({:.3g} to {:.3g})".format(*line["latency_ms"])
        asked = ", ".join(
            line[name] for name in ("ram", "flash", "latency") if name in line and isinstance(line[name], str)
        )
        instructions = line["instructions"]
        few = f", {line['train_images']:,} training images" if line.get("train_images") else ""
        rows.append((
            f"{line['case']}{few}", line["device"], asked, line["time"], f"{line['test_accuracy']:.2%}", f"{line['float_accuracy']:.2%}",
            line["macs"], line["peak_ram_bytes"], line["flash_bytes"], " and ".join(line["verified_on"]) or "no",
            f"{instructions / line['macs']:.2f}" if instructions else "–", latency,
        ))  # fmt: skip
    head = ("case", "device", "limits", "time", "int8 accuracy", "float32 accuracy", "MACs", "RAM, bytes", "flash, bytes",
            "verified on", "instructions per MAC", "latency, ms (90 %)")  # fmt: skip
    return (
        (
            "## From images to a program for a microcontroller\n\n`python tests/benchmarks/boards.py`: whole runs; accuracy on the "
            "test images (of the integers that the program computes, and of the winner in float32). RAM is the arena and the stack "
            "under emulation, flash the code and the constants as compiled. Latencies are estimates: instructions counted under "
            f"emulation times published cycles; no board has run these programs (commit {commits(lines)}).\n\n{table(head, rows)}"
        )
        if rows
        else ""
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--only", default="", help="part of the names of cases")
    parser.add_argument("--images", type=int, help="so many of the training images (default: all)")
    parser.add_argument("--time", default="5min")
    parser.add_argument("--out", type=Path, default=Path("runs/boards"))
    given = parser.parse_args()
    chosen = [(case, 0) for case in CASES if given.only in case]
    extend(NAME, chosen, lambda case, seed: measure(case, seed, given), given.minutes)


if __name__ == "__main__":
    main()
