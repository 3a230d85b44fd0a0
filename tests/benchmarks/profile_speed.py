"""How many networks can be profiled in a second, beside fvcore's count of the same networks.

    python tests/benchmarks/profile_speed.py --minutes 10

Networks are timed as a search meets them, one after another: a round is fvcore's analysis of all networks of a space,
and then their profiles; rounds are repeated, and each line is one network's median milliseconds over the rounds.

``cold_ms`` is Arch -> estimated int8 Profile of a random sample with nothing remembered; ``changed_ms`` the same of a
mutation of it, another network by one choice, when only the sample is known; ``fvcore_ms`` is fvcore's tracing and
counting of the module of the mutation, which is built beforehand. The device file is read beforehand as well; its table
of costs remembers no network.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from fvcore.nn import FlopCountAnalysis

sys.path.insert(0, str(Path(__file__).parents[2]))
from hw_profiles import Device, load_device, profile
from search_spaces import Arch, Space, arch, build_model, list_spaces, load_space
from search_spaces.space import Choice
from tests.benchmarks.lines import extend

NETWORKS = 20
CASES = [(space, seed) for space in list_spaces() for seed in range(NETWORKS)]
_ROUNDS = 9


@dataclass
class Pair:
    """A random network, one that differs from it by one choice, and what was timed of both."""

    first: Arch
    changed: Arch
    model: torch.nn.Module
    times: dict[str, list[float]] = field(default_factory=dict)

    def take(self, name: str, run: Callable[[], object]) -> None:
        start = time.perf_counter()
        run()
        self.times.setdefault(name, []).append(1000 * (time.perf_counter() - start))

    def line(self) -> dict[str, float]:
        medians = {name: statistics.median(values) for name, values in self.times.items()}
        ratios = {f"fvcore_over_{name}": medians["fvcore_ms"] / medians[f"{name}_ms"] for name in ("cold", "changed")}
        return {name: round(value, 4) for name, value in {**medians, **ratios}.items()}


def mutated(space: Space, params: Mapping[str, Choice], seed: int) -> dict[str, Choice]:
    """One choice changed to another value."""
    generator = random.Random(seed)
    name = generator.choice([name for name, values in space.choices.items() if len(values) > 1])
    return {**params, name: generator.choice([v for v in space.choices[name] if v != params[name]])}


def pair(space: Space, seed: int) -> Pair:
    """Of the mutations of the seed's sample the first that builds another network."""
    params = space.sample_params(seed)
    first = space.build(params)
    mutations = (space.build(mutated(space, params, seed=seed + NETWORKS * i)) for i in itertools.count())
    changed = next(network for network in mutations if network != first)
    return Pair(first, changed, build_model(changed).eval())


def fvcore(network: Pair) -> int:
    counted = FlopCountAnalysis(network.model, torch.zeros(1, *network.changed.input_shape))
    counted.unsupported_ops_warnings(False)
    return int(counted.total())


def forget(device: Device) -> None:
    """As in a new process: no block is known."""
    arch._block_part.cache_clear()
    arch._last_part.cache_clear()
    device.memo.pop(("parts", "int8"), None)


@cache
def pairs(case: str) -> list[Pair]:
    """All networks of a space, timed."""
    space, device = load_space(case, input_shape=(3, 32, 32), num_classes=10), load_device("host")
    device.table("int8")
    found = [pair(space, seed) for seed in range(NETWORKS)]
    for _ in range(_ROUNDS):
        for network in found:
            network.take("fvcore_ms", lambda network=network: fvcore(network))
        for network in found:
            forget(device)
            network.take("cold_ms", lambda network=network: profile(network.first, device, "int8"))
            network.take("changed_ms", lambda network=network: profile(network.changed, device, "int8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    extend("profile_speed", CASES, lambda case, seed: pairs(case)[seed].line(), parser.parse_args().minutes)


if __name__ == "__main__":
    main()
