"""A machine that is ``host`` but for some kinds of kernels, on which the kit takes no time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hw_profiles import Device, profile
from hw_profiles.cost_model.kernel_costs import KernelCost
from hw_profiles.device_kit.kit_networks import in_precisions, kit_names, kit_workload
from hw_profiles.device_kit.kit_results import KitResult, KitTime
from hw_profiles.devices.device_file import shipped_device
from hw_profiles.devices.machine import conditions
from hw_profiles.latency.estimate import Latency

NOISE = 0.01


def other_machine(factors: dict[str, float]) -> Device:
    """``host`` with the costs of kinds whose name holds a word times a factor."""
    host = shipped_device("host")

    def changed(kind: str, cost: KernelCost) -> KernelCost:
        factor = float(np.prod([value for word, value in factors.items() if word in kind]))
        return replace(cost, coefficients=tuple(factor * each for each in cost.coefficients))

    costs = {p: {kind: changed(kind, cost) for kind, cost in table.items()} for p, table in host.costs.items()}
    return replace(host, costs=costs)


def kit_result(truth: Device, names: tuple[str, ...] | None = None, **stated: str) -> KitResult:
    """What the kit would measure there."""
    draw = np.random.default_rng(0)
    times = [
        KitTime(
            network=name,
            precision=precision,
            latency_ms=profile(kit_workload(name), truth, precision).latency_ms * float(np.exp(draw.normal(0, NOISE))),
        )
        for name in names or kit_names()
        for precision in in_precisions(name)
    ]
    return KitResult(conditions={**conditions(1), **stated}, runtime="ort", reference_ms=0.05, times=tuple(times))


class Clock:
    """Takes the place of measuring on this machine: times are those of another device; counts the measurements."""

    def __init__(self, truth: Device) -> None:
        self.truth = truth
        self.measured: list[tuple[str, str]] = []
        self.nominal: list[float] = []

    def file(self, name: str, precision: str) -> tuple[str, str]:
        return name, precision

    def measure(self, file: tuple[str, str], threads: int, nominal: float, *, max_rounds: int) -> Latency:
        name, precision = file
        self.measured.append(file)
        self.nominal.append(nominal)
        ms = profile(kit_workload(name), self.truth, precision).latency_ms
        return Latency(ms=ms, low_ms=ms, high_ms=ms, source="measured")
