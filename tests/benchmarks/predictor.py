"""How well latencies are predicted: networks that were never measured before, each predicted, then measured twice.

    python tests/benchmarks/predictor.py --minutes 10

Each line is one network of a space at a random size in one precision, half of them pruned to widths on no grid: its
estimate with the 90 % interval, two measurements in two sessions, and what simpler predictors look at: MACs, bytes
moved, and the same for each kind of operation as if nothing were fused.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from hw_profiles import load_device, profile
from hw_profiles.measurement.latency_measurement import measure as measure_file
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.network.workload import Op, Workload
from hw_profiles.onnx_io.writer import write_onnx
from nas.commands.benchmark_networks import narrowed
from search_spaces import Arch, list_spaces, sample
from tests.benchmarks.lines import extend

_SIZES = (32, 48, 64, 96, 128, 160, 192, 224)
_NETWORKS = 25  # of each space, in both precisions together: 100 in all
_FIRST_SEED = 5000


def network(space: str, seed: int) -> tuple[Arch, str, bool]:
    """The Arch, its precision, and whether it was pruned."""
    draw = random.Random(f"{space} {seed}")
    side = draw.choice(_SIZES)
    arch = sample(space, seed=_FIRST_SEED + seed, input_shape=(3, side, side), num_classes=10)
    pruned = seed % 2 == 1
    return narrowed(arch, seed) if pruned else arch, ("fp32", "int8")[seed // 2 % 2], pruned


def _operation(workload: Workload, op: Op) -> tuple[str, float, float]:
    """What a predictor without fusion knows of one operation: its kind, millions of MACs and megabytes moved."""
    moved = sum(workload.tensor_bytes(name) for name in (*op.inputs, op.name))
    if op.stores_weights:
        moved += workload.format(op.weight).bytes(int(np.prod(op.weight_shape)))
    kind = "depthwise" if op.depthwise else op.function if op.kind == "activation" else op.kind
    return kind, workload.op_macs(op) / 1e6, moved / 1e6


def measure(space: str, seed: int) -> dict[str, Any]:
    arch, precision, pruned = network(space, seed)
    device = load_device("host")
    found = profile(arch, device, precision)
    workload = arch.workload().with_precision(precision)
    file = write_onnx(workload, quantization=fixed_quantization(workload) if precision == "int8" else None)
    first, second = (measure_file(file, device).ms for _ in range(2))
    kinds: dict[str, list[float]] = {}
    for op in workload.ops:
        kind, macs, moved = _operation(workload, op)
        sums = kinds.setdefault(kind, [0.0, 0.0, 0.0])
        for i, amount in enumerate((1.0, macs, moved)):
            sums[i] = round(sums[i] + amount, 6)
    return {
        "precision": precision, "pruned": pruned, "size": arch.input_shape[1], "macs": workload.macs,
        "estimated_ms": round(found.latency_ms, 5), "low_ms": round(found.latency_low_ms, 5),
        "high_ms": round(found.latency_high_ms, 5), "measured_ms": round(first, 5), "again_ms": round(second, 5),
        "unfused": kinds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    cases = [(space, seed) for seed in range(_NETWORKS) for space in list_spaces()]
    extend("predictor", cases, measure, parser.parse_args().minutes)


if __name__ == "__main__":
    main()
