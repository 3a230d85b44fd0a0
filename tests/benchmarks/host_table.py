"""Fit the kernel table of hw_profiles/devices/host.toml to measurements of random networks on this machine.

    python tests/benchmarks/host_table.py --networks 80

Prints the [kernels] part of the file and, in comments, how well it fits networks that were left out of the fit.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
from scipy.optimize import lsq_linear

from hw_profiles import Workload, load_device
from hw_profiles.fusion import fuse
from hw_profiles.latency import conditions, measure
from hw_profiles.onnx_write import fixed_quantization, write_onnx
from search_spaces import sample

Row = dict[tuple[str, str], float]
_SHORTEST_US = 0.3
_UNITS = ("overhead_us", "us_per_mmac", "us_per_mbyte")


def features(workload: Workload) -> Row:
    """Kernels, millions of MACs and megabytes of each kind of kernel, and one call."""
    row: Row = {("call", "overhead_us"): 1.0}
    for kernel in fuse(workload):
        if kernel.kind in ("quantize", "dequantize"):
            continue  # one of each in every network: part of the call
        moved = sum(workload.tensor_bytes(t) for t in (*kernel.inputs, kernel.output)) + kernel.weight_bytes
        for unit, value in zip(_UNITS, (1.0, kernel.macs / 1e6, moved / 1e6), strict=True):
            if unit == "us_per_mmac" and not kernel.macs:
                continue
            row[kernel.kind, unit] = row.get((kernel.kind, unit), 0.0) + value
    return row


def fit(rows: list[Row], micro: list[float]) -> dict[tuple[str, str], float]:
    """Least squares of relative errors; nothing is below zero and no kernel starts for nothing."""
    columns = sorted({column for row in rows for column in row})
    matrix = np.array([[row.get(column, 0.0) / y for column in columns] for row, y in zip(rows, micro, strict=True)])
    lowest = [_SHORTEST_US if unit == "overhead_us" else 0.0 for _, unit in columns]
    solution = lsq_linear(matrix, np.ones(len(rows)), bounds=(lowest, np.inf)).x
    return dict(zip(columns, solution, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=80)
    count = parser.parse_args().networks
    device = load_device("host")
    print(f"# {conditions(device.threads)}")
    for precision in ("fp32", "int8"):
        rows, micro = [], []
        for seed in range(count):
            workload = sample("mobilenet", seed=seed).workload()
            quantization = fixed_quantization(workload) if precision == "int8" else None
            rows.append(features(workload.with_precision(precision)))
            micro.append(measure(write_onnx(workload, quantization=quantization), device).ms * 1000)
        half = count // 2
        trial = fit(rows[:half], micro[:half])
        errors = [
            abs(sum(trial.get(c, 0.0) * v for c, v in row.items()) / y - 1)
            for row, y in zip(rows[half:], micro[half:], strict=True)
        ]
        print(f"# {precision}: median error {statistics.median(errors):.1%} on {len(errors)} networks left out")
        table = fit(rows, micro)
        for kind in sorted({kind for kind, _ in table}):
            entries = ", ".join(f"{unit} = {table.get((kind, unit), 0.0):.3f}" for unit in _UNITS)
            print(f"kernels.{precision}.{kind} = {{ {entries} }}")


if __name__ == "__main__":
    main()
