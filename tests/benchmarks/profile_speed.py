"""How many networks can be profiled in a second, beside fvcore's count of the same networks.

    python tests/benchmarks/profile_speed.py --minutes 5

Each line: median milliseconds of Arch -> Workload, Arch -> estimated int8 Profile, and fvcore's analysis of the module,
taken in turn on one network, and their ratio.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis

sys.path.insert(0, str(Path(__file__).parents[2]))
from hw_profiles import load_device, profile
from search_spaces import build_model, preset, sample
from tests.benchmarks.lines import extend

CASES = [("resnet8", 0), ("mobilenetv2_100", 0), *(("mobilenet", seed) for seed in range(5))]


def milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def measure(case: str, seed: int) -> dict[str, Any]:
    arch = sample(case, seed=seed) if case == "mobilenet" else preset(case)
    model, device = build_model(arch).eval(), load_device("host")
    x = torch.zeros(1, *arch.input_shape)

    def fvcore() -> int:
        counted = FlopCountAnalysis(model, x)
        counted.unsupported_ops_warnings(False)
        return int(counted.total())

    runs = {"workload_ms": arch.workload, "profile_ms": lambda: profile(arch, device, "int8"), "fvcore_ms": fvcore}
    times = {name: [] for name in runs}
    for _ in range(15):
        for name, run in runs.items():
            times[name].append(milliseconds(run))
    medians = {name: round(statistics.median(values), 4) for name, values in times.items()}
    return {**medians, "fvcore_over_profile": round(medians["fvcore_ms"] / medians["profile_ms"], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    logging.disable(logging.WARNING)
    extend("profile_speed", CASES, measure, parser.parse_args().minutes)


if __name__ == "__main__":
    main()
