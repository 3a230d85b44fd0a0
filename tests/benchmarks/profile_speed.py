"""How many networks can be profiled in a second, beside fvcore's count of the same networks.

    python tests/benchmarks/profile_speed.py --minutes 10

Each line is one network, as a random sample and after one more change of one choice: median milliseconds of Arch ->
estimated int8 Profile with nothing remembered, of the same for the changed network when the first one is known, and of
fvcore's analysis of the module of the changed one, taken in turn.
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
from search_spaces import Arch, arch, build_model, list_spaces, load_space
from tests.benchmarks.lines import extend

CASES = [(space, seed) for space in list_spaces() for seed in range(10)]
_ROUNDS = 9


def milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def fvcore(model: torch.nn.Module, x: torch.Tensor) -> int:
    counted = FlopCountAnalysis(model, x)
    counted.unsupported_ops_warnings(False)
    return int(counted.total())


def forget() -> None:
    """As in a new process: no block is known."""
    arch._block_part.cache_clear()
    arch._last_part.cache_clear()


def one_round(first: Arch, changed: Arch) -> dict[str, float]:
    device = load_device("host")
    device.table("int8")  # loading the device is no part of a profile
    forget()
    cold = milliseconds(lambda: profile(first, device, "int8"))
    return {"cold_ms": cold, "changed_ms": milliseconds(lambda: profile(changed, device, "int8"))}


def measure(case: str, seed: int) -> dict[str, Any]:
    space = load_space(case, input_shape=(3, 32, 32), num_classes=10)
    params = space.sample_params(seed)
    first, changed = space.build(params), space.build(space.mutate(params, seed=seed))
    model, x = build_model(changed).eval(), torch.zeros(1, *changed.input_shape)
    times: dict[str, list[float]] = {"cold_ms": [], "changed_ms": [], "fvcore_ms": []}
    for _ in range(_ROUNDS):
        for name, value in one_round(first, changed).items():
            times[name].append(value)
        times["fvcore_ms"].append(milliseconds(lambda: fvcore(model, x)))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {f"fvcore_over_{name}": medians["fvcore_ms"] / medians[f"{name}_ms"] for name in ("cold", "changed")}
    return {name: round(value, 4) for name, value in {**medians, **ratios}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    extend("profile_speed", CASES, measure, parser.parse_args().minutes)


if __name__ == "__main__":
    main()
