"""A short check whether the times of a device file are those of this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from hw_profiles.device_kit.kit_networks import FIRST, in_precisions, kit_file, kit_names, kit_workload
from hw_profiles.device_kit.kit_results import KitTime
from hw_profiles.devices.device import Device
from hw_profiles.errors import InputError
from hw_profiles.latency.estimate import estimate
from hw_profiles.measurement.latency_measurement import measure_here, nominal_ms
from hw_profiles.runtimes.fusion import fuse

_log = logging.getLogger("fitnas")
_MOST_ROUNDS = 40
_REPORT_SECONDS = 5.0
_SHARE_WITHIN = 0.7  # of networks in the 90 % interval: of ten, seven or more are in 99 of 100 cases
_CLOSE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedTime:
    """A network of the kit: its milliseconds, and its estimate with the 90 % interval of the device's own spread."""

    network: str
    precision: str
    measured_ms: float
    estimated_ms: float
    low_ms: float
    high_ms: float

    @property
    def within(self) -> bool:
        """Whether the interval holds the measurement."""
        return self.low_ms <= self.measured_ms <= self.high_ms

    @property
    def error(self) -> float:
        """Estimate / measurement - 1."""
        return self.estimated_ms / self.measured_ms - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineCheck:
    """What was measured, and what the device says of it."""

    times: tuple[CheckedTime, ...]

    @property
    def rows(self) -> tuple[CheckedTime, ...]:
        """The times (see :func:`nas.records`)."""
        return self.times

    def share_within(self, precision: str) -> float:
        """The share of the networks of a precision in the interval, in 0..1."""
        return self._share(precision, [each.within for each in self._of(precision)])

    def share_close(self, precision: str) -> float:
        """The share of the networks of a precision that are within 10 %, in 0..1."""
        return self._share(precision, [abs(each.error) <= _CLOSE for each in self._of(precision)])

    def median_error(self, precision: str) -> float:
        """The median of |estimate / measurement - 1|."""
        return median(abs(each.error) for each in self._of(precision))

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that were measured."""
        return tuple(dict.fromkeys(each.precision for each in self.times))

    @property
    def holds(self) -> bool:
        """Whether the device's times are those of this machine: in each precision at least seven of ten networks are in
        the 90 % interval.
        """
        return all(self.share_within(precision) >= _SHARE_WITHIN for precision in self.precisions)

    def _of(self, precision: str) -> list[CheckedTime]:
        return [each for each in self.times if each.precision == precision]

    @staticmethod
    def _share(precision: str, held: Sequence[bool]) -> float:
        if not held:
            raise InputError(f"no network was measured in {precision}")
        return sum(held) / len(held)


def check_machine(device: Device) -> MachineCheck:
    """Run ten networks of the kit on this machine, in each precision of the device, and compare their latencies with
    the estimates of the device; this takes a few seconds.

    Raises:
        InputError: the device is for another runtime than ONNX Runtime, or is not this machine.
    """
    require_measurable(device)
    return compared(device, kit_times(kit_names()[:FIRST], tuple(device.costs), device.threads, nominal_ms(device)))


def require_measurable(device: Device) -> None:
    """Raise an InputError where this process cannot run what the device runs."""
    if not device.measurable or device.runtime != "ort":
        raise InputError(f"device {device.name} cannot be measured on this machine")


def compared(device: Device, times: Sequence[KitTime]) -> MachineCheck:
    """Times beside the estimates of a device, with the interval that its own spread gives."""
    return MachineCheck(times=tuple(_checked(device, each) for each in times))


def _checked(device: Device, measured: KitTime) -> CheckedTime:
    workload = kit_workload(measured.network).with_precision(measured.precision)
    own_interval = replace(device, measurable=False)  # not the wide one of a machine that it was not measured on
    found = estimate(workload, fuse(workload, device.runtime), own_interval)
    return CheckedTime(
        network=measured.network,
        precision=measured.precision,
        measured_ms=measured.latency_ms,
        estimated_ms=found.ms,
        low_ms=found.low_ms,
        high_ms=found.high_ms,
    )


def kit_times(names: Sequence[str], precisions: Sequence[str], threads: int, nominal: float) -> list[KitTime]:
    """The times of networks of the kit on this machine, where the reference network takes ``nominal`` milliseconds."""
    wanted = [(name, precision) for name in names for precision in in_precisions(name, precisions)]
    times, reported = list[KitTime](), time.monotonic()
    for name, precision in wanted:
        found = measure_here(kit_file(name, precision), threads, nominal, max_rounds=_MOST_ROUNDS)
        times.append(KitTime(network=name, precision=precision, latency_ms=found.ms))
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            _log.info("%d of %d networks measured", len(times), len(wanted))
    return times
