"""Time the networks of this folder in ONNX Runtime, and write result.json.

    python3 measure.py [--threads N] [--out result.json]

It needs Python 3.9 or later and onnxruntime, and nothing else: python3 -m pip install onnxruntime
It reads the files of this folder, writes one file, and sends nothing anywhere.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hw_profiles.devices.machine import conditions
from hw_profiles.measurement.interleaved_timing import alternate, clock_of, median_interval, median_seconds, repetitions

RESULT_SCHEMA = 1
_MOST_ROUNDS, _PRECISE = 40, 0.02
_REFERENCE_ROUNDS = 300
_MOST_THREADS = 1024


def main() -> int:
    """Measure what ``kit.json`` lists; the exit code."""
    parser = argparse.ArgumentParser(description="Time the networks of this folder in ONNX Runtime.")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads per network (default: 1)")
    parser.add_argument("--out", default="result.json", metavar="FILE", help="file to write (default: result.json)")
    parsed = parser.parse_args()
    if not 1 <= parsed.threads <= _MOST_THREADS:
        parser.error(f"--threads must be between 1 and {_MOST_THREADS}, got {parsed.threads}")
    if not Path(parsed.out).absolute().parent.is_dir():
        parser.error(f"--out must be a file in a folder that exists, got {parsed.out}")
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        print(f"measure.py needs onnxruntime ({error}): python3 -m pip install onnxruntime", file=sys.stderr)
        return 2
    result = measured_kit(Path(__file__).resolve().parent, parsed.threads)
    text = json.dumps(result, indent=1) + "\n"
    partial = Path(parsed.out + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(parsed.out)
    print(f"{len(result['networks'])} times in {result['seconds']:.0f} s: {parsed.out}")
    return 0


def measured_kit(folder: Path, threads: int) -> dict[str, Any]:
    """The content of ``result.json``: milliseconds relative to the kit's reference network, whose own are those of this
    machine.
    """
    start = time.monotonic()
    kit = json.loads((folder / "kit.json").read_text(encoding="utf-8"))
    reference = runner(folder / kit["reference"], threads)
    clock = clock_of(threads)
    times = repetitions(reference, clock)
    nominal = 1000 * statistics.median(median_seconds(reference, times, clock) for _ in range(_REFERENCE_ROUNDS))
    rows = []
    for number, each in enumerate(kit["networks"], start=1):
        ratios, raw = alternate(runner(folder / each["file"], threads), reference, _MOST_ROUNDS, _PRECISE, clock)
        low, high = median_interval(ratios)
        row = {"network": each["network"], "precision": each["precision"]}
        milliseconds = {
            "latency_ms": statistics.median(ratios) * nominal, "low_ms": low * nominal, "high_ms": high * nominal,
            "raw_ms": statistics.median(raw),
        }  # fmt: skip
        rows.append({**row, **{name: round(value, 6) for name, value in milliseconds.items()}})
        print(
            f"{number} of {len(kit['networks'])}: {row['network']} {row['precision']} {row_ms(rows[-1])}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    return {
        "schema": RESULT_SCHEMA, "kit": kit["kit"], "runtime": "ort", "conditions": conditions(threads),
        "reference_ms": round(nominal, 6), "seconds": round(time.monotonic() - start, 1), "networks": rows,
    }  # fmt: skip


def row_ms(row: dict[str, Any]) -> str:
    """The time of a row for a person."""
    return f"{row['latency_ms']:.4g} ms ({row['low_ms']:.4g} to {row['high_ms']:.4g})"


def runner(file: Path, threads: int) -> Callable[[], None]:
    """A function that runs the network once."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    [spec] = session.get_inputs()
    shape = [side if isinstance(side, int) else 1 for side in spec.shape]
    feed = {spec.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    outputs = [each.name for each in session.get_outputs()]
    return lambda: session.run(outputs, feed) and None


if __name__ == "__main__":
    sys.exit(main())
