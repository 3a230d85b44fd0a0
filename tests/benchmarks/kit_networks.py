"""Chooses the networks of `nas devices kit`: prints KIT_SEEDS of hw_profiles/device_kit/kit_networks.py, or BOARD_SEEDS.

    python tests/benchmarks/kit_networks.py
    python tests/benchmarks/kit_networks.py --board

One network after the other is taken from random ones that are small and quick, each the one that leaves the least doubt
about the latency of random networks as people use them: the mean variance over those, after the factors of all costs of
a device were corrected by the ones that are taken (Bayesian linear regression; all precisions together). The device
is ``host`` in both precisions; for boards ``stm32f746`` in int8.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from hw_profiles.cost_model.features import network_features
from hw_profiles.cost_model.scaling import cost_shares, prior_covariance
from hw_profiles.devices.device_file import shipped_device
from hw_profiles.measurement.random_networks import is_attention, micro_network
from hw_profiles.network.workload import Workload
from hw_profiles.runtimes.fusion import fuse

_WIDTHS, _NOISE = (0.05, 0.15, 0.3), 0.03


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What is chosen from, and how many; bytes are those of float32 weights, ``values`` of the largest tensor."""

    device: str
    precisions: tuple[str, ...]
    count: int
    candidates: range
    weight_bytes: float
    macs: float
    values: float

    def takes(self, workload: Workload) -> bool:
        """Whether a network may be one of the kit."""
        values = max(math.prod(shape) for shape in workload.shapes.values())
        return workload.weight_bytes <= self.weight_bytes and workload.macs <= self.macs and values <= self.values


HOST = Kit(
    device="host", precisions=("fp32", "int8"), count=20, candidates=range(1, 75), weight_bytes=3.2e6, macs=130e6,
    values=math.inf,
)  # fmt: skip
BOARD = Kit(
    device="stm32f746", precisions=("int8",), count=8, candidates=range(0, 240, 3), weight_bytes=2e5, macs=4e6,
    values=12_000,
)  # fmt: skip


@dataclass
class Doubt:
    """In one precision: of each network how its time changes with each factor, and what is known of the factors."""

    jacobian: np.ndarray
    covariance: np.ndarray
    typical: list[int]

    def gain(self, network: int) -> float:
        """By how much the mean variance over typical networks falls if a network is measured, as a share of it."""
        wanted = self.jacobian[self.typical]
        reach = self.covariance @ self.jacobian[network]
        before = float(np.einsum("ij,jk,ik->", wanted, self.covariance, wanted))
        return float(((wanted @ reach) ** 2).sum() / (_NOISE**2 + self.jacobian[network] @ reach)) / before

    def measure(self, network: int) -> None:
        """Take up that a network is measured."""
        reach = self.covariance @ self.jacobian[network]
        self.covariance -= np.outer(reach, reach) / (_NOISE**2 + self.jacobian[network] @ reach)

    def percent(self) -> float:
        """The doubt about a typical network."""
        wanted = self.jacobian[self.typical]
        return 100 * float(np.sqrt(np.einsum("ij,jk,ik->i", wanted, self.covariance, wanted).mean()))


def doubt(kit: Kit, networks: Mapping[int, Workload], precision: str) -> Doubt:
    """Before anything is measured. Typical are long networks; for boards, where all are short, all of them."""
    device = shipped_device(kit.device)
    formatted = [workload.with_precision(precision) for workload in networks.values()]
    features = [network_features(workload, fuse(workload, device.runtime)) for workload in formatted]
    found = cost_shares(device.costs[precision], features)
    typical = [i for i, seed in enumerate(networks) if seed % 3 or kit is BOARD]
    jacobian = found.microseconds / found.microseconds.sum(axis=1, keepdims=True)
    return Doubt(jacobian, prior_covariance(found.components, _WIDTHS), typical)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--board", action="store_true")
    kit = BOARD if parser.parse_args().board else HOST
    networks = {seed: micro_network(seed) for seed in kit.candidates if not is_attention(seed)}
    if kit is BOARD:
        networks = {seed: workload for seed, workload in networks.items() if kit.takes(workload)}
    doubts = {precision: doubt(kit, networks, precision) for precision in kit.precisions}
    seeds = list(networks)
    left = [i for i, workload in enumerate(networks.values()) if kit.takes(workload)]
    chosen: list[int] = []
    for _ in range(kit.count):
        best = max(left, key=lambda i: sum(each.gain(i) for each in doubts.values()))
        left.remove(best)
        chosen.append(seeds[best])
        for each in doubts.values():
            each.measure(best)
        print(chosen[-1], ", ".join(f"{name} ±{each.percent():.1f} %" for name, each in doubts.items()), flush=True)
    print(tuple(chosen))


if __name__ == "__main__":
    main()
