"""Energy of one inference, from the power that a device is known to take while it computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw_profiles.devices.device import Device


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """Millijoules of one inference with a 90 % interval."""

    mj: float
    low_mj: float
    high_mj: float


def energy(device: Device, ms: float, low_ms: float, high_ms: float) -> Energy | None:
    """Active power times latency; None where the device states no power.

    On one board energy follows latency: the power while it computes hardly depends on the network. The interval joins
    that of the latency and the range of the published powers. What the device takes between inferences is not in it.

    >>> from hw_profiles import load_device
    >>> found = energy(load_device("stm32l4r5"), 100.0, 90.0, 110.0)
    >>> found is not None and 3 < found.low_mj < found.mj < found.high_mj < 7
    True
    """
    power = device.facts.get("active_power_mw")
    if power is None or isinstance(power.value, str):
        return None
    mj = power.value * ms / 1000
    low, high = (
        math.hypot(math.log(ms / low_ms), power.deviation),
        math.hypot(math.log(high_ms / ms), power.deviation),
    )
    return Energy(mj=mj, low_mj=mj / math.exp(low), high_mj=mj * math.exp(high))


def energy_upper_bound_mj(device: Device, latency_upper_bound_ms: float) -> float | None:
    """The millijoules that are compared with a limit: the latency that is compared with one, at the highest published
    power; None where the device states no power.

    >>> from hw_profiles import load_device
    >>> round(energy_upper_bound_mj(load_device("stm32l4r5"), 100.0), 2)
    4.87
    """
    power = device.facts.get("active_power_mw")
    return None if power is None or power.high is None else power.high * latency_upper_bound_ms / 1000


def latency_limit_ms(device: Device, energy_mj: float) -> float | None:
    """The latency at which :func:`energy_upper_bound_mj` is ``energy_mj``; None where the device states no power.

    >>> from hw_profiles import load_device
    >>> round(latency_limit_ms(load_device("stm32l4r5"), 4.87))
    100
    """
    per_ms = energy_upper_bound_mj(device, 1.0)
    return None if not per_ms else energy_mj / per_ms
