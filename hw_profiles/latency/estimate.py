"""Estimates latency, with a 90 % interval, from the costs of a device."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from hw_profiles.cost_model.features import (
    CostFeatures,
    call_features,
    in_network_of_size,
    kernel_features,
    network_features,
    size_coordinate,
)
from hw_profiles.devices.c99_program import microseconds_of_instruction
from hw_profiles.devices.device import Device
from hw_profiles.devices.facts import FACTOR_OF_TWO, NINETY
from hw_profiles.devices.machine import matches_this_machine
from hw_profiles.network.quantization import operations_in_float
from hw_profiles.network.workload import Workload
from hw_profiles.runtimes.fusion import in_integers, is_mixed
from hw_profiles.runtimes.kernels import Kernel
from hw_profiles.runtimes.ort_mixed import weights_in_float

_CHANCE = NormalDist().inv_cdf(0.9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Milliseconds with a 90 % interval. ``raw_ms`` is the clock's own median where it was measured."""

    ms: float
    low_ms: float
    high_ms: float
    source: str
    raw_ms: float | None = None

    def facts(self) -> dict[str, Any]:
        """Its entries in profiles and metrics."""
        return {f"latency_{name}": getattr(self, name) for name in ("ms", "low_ms", "high_ms", "source", "raw_ms")}


def upper_bound_ms(ms: float, high_ms: float, source: str) -> float:
    """The milliseconds that are compared with a limit: of a measurement the upper end of its 90 % interval, of an
    estimate what is kept with a chance of 90 %, its logarithm being normal in the interval.

    >>> upper_bound_ms(1.0, 1.25, "measured"), round(upper_bound_ms(1.0, 1.25, "estimated"), 3)
    (1.25, 1.19)
    """
    if source == "measured":
        return high_ms
    return float(ms * (high_ms / ms) ** (_CHANCE / NINETY))


def prediction_deviation(device: Device, precision: str) -> float:
    """The relative standard deviation of what the device's estimates in a precision miss."""
    uncalibrated = device.measurable and precision not in device.calibrated
    if uncalibrated and not matches_this_machine(device.conditions, device.threads):
        return max(device.spread[precision], FACTOR_OF_TWO)
    return device.spread[precision]


def precision_of(workload: Workload) -> str:
    """The precision whose costs a workload is estimated with: int8 if any operation is computed in integers.

    >>> from search_spaces import preset
    >>> precision_of(preset("resnet8").workload().with_precision("int8"))
    'int8'
    """
    return "int8" if in_integers(workload) else "fp32"


def precisions_of_kernels(workload: Workload, kernels: Sequence[Kernel]) -> list[str]:
    """The precision whose costs each kernel has: that of its arithmetic, int8 for conversions.

    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> set(precisions_of_kernels(w, fuse(w)))
    {'fp32'}
    """
    if not is_mixed(workload):
        return [precision_of(workload)] * len(kernels)
    in_float = operations_in_float(workload, weights_in_float(workload))
    return ["fp32" if _is_floating(kernel, in_float) else "int8" for kernel in kernels]


def _is_floating(kernel: Kernel, in_float: Collection[str]) -> bool:
    return kernel.ops[0].name in in_float if kernel.ops else kernel.nodes[0].startswith("Reorder")


def estimate(workload: Workload, kernels: Sequence[Kernel], device: Device) -> Latency:
    """The sum of what the kernels cost on the device.

    The interval holds what the device's own table missed when it was made, and the doubt about kernels that are unlike
    all measured ones; where the table was made under other conditions than hold here, it is at least a factor of two
    either way.

    >>> from hw_profiles import load_device
    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> estimate(w, fuse(w), load_device("host")).source
    'estimated'
    """
    if is_mixed(workload):
        return _mixed(workload, kernels, device)
    precision = precision_of(workload)
    microseconds, doubt = device.table(precision).total(network_features(workload, kernels))
    return latency_from(microseconds, doubt, device, precision)


def _mixed(workload: Workload, kernels: Sequence[Kernel], device: Device) -> Latency:
    """Each kernel at the costs of its arithmetic; conversions and the call at those of int8. The interval is the wider
    one of both.
    """
    nodes = sum(len(kernel.nodes) for kernel in kernels)
    groups: dict[str, list[CostFeatures]] = {"fp32": [], "int8": [call_features(nodes)]}
    for kernel, precision in zip(kernels, precisions_of_kernels(workload, kernels), strict=True):
        groups[precision] += in_network_of_size(kernel_features(workload, kernel), size_coordinate(nodes))
    totals = [device.table(precision).total(all_features) for precision, all_features in groups.items()]
    microseconds, doubt = (sum(each) for each in zip(*totals, strict=True))
    return max(
        (latency_from(microseconds, doubt, device, precision) for precision in groups), key=lambda found: found.high_ms
    )


def counted_latency(instructions: int, device: Device) -> Latency:
    """The estimate for a C99 program whose instructions were counted under emulation, on a device that
    :func:`hw_profiles.devices.c99_program.with_c99_costs` made.

    >>> from hw_profiles import load_device
    >>> from hw_profiles.devices.c99_program import with_c99_costs
    >>> found = counted_latency(1_000_000, with_c99_costs(load_device("stm32l4r5")))
    >>> found.source, found.low_ms < 10 < found.high_ms
    ('estimated', True)
    """
    return latency_from(instructions * microseconds_of_instruction(device), 0.0, device, "int8")


def latency_from(microseconds: float, doubt: float, device: Device, precision: str) -> Latency:
    """An estimate of so many microseconds, of which ``doubt`` are of kernels unlike all that were measured."""
    deviation = math.hypot(prediction_deviation(device, precision), doubt / microseconds)
    ms, factor = microseconds / 1000, math.exp(NINETY * deviation)
    return Latency(ms=ms, low_ms=ms / factor, high_ms=ms * factor, source="estimated")
