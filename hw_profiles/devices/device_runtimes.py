"""A device with another of the runtimes that it can be estimated for."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from hw_profiles.devices.c99_program import runs_c99, with_c99_costs
from hw_profiles.devices.device import Device
from hw_profiles.devices.device_file import list_devices, load_device, shipped_device
from hw_profiles.devices.facts import FACTOR_OF_TWO
from hw_profiles.errors import InputError
from hw_profiles.runtimes.fusion import RUNTIMES

_ONNX_RUNTIME, _STRUCTURE = "ort", "host"  # whose kinds of kernels are those of ONNX Runtime
_C99 = "c99"
_UNPUBLISHED = {"torch": "ncnn"}  # a runtime of which no device ships, and the one whose costs it starts with
_UNKNOWN = 3 * FACTOR_OF_TWO  # costs of another core or another runtime: eight times either way
_OF_ITS_SOFTWARE = ("measured_with", "dead_channels", "runtime_ram_bytes", "runtime_flash_bytes")  # facts
_CORE = re.compile(r"Cortex-[AM]\d+\+?|LX7|RISC-V")


def runtimes(name: str) -> dict[str, str]:
    """The runtimes for which a device ships, each with the device of that runtime.

    >>> runtimes("raspberry-pi-4")
    {'ncnn': 'raspberry-pi-4-ncnn', 'tflite': 'raspberry-pi-4'}
    """
    alike = {name, *(f"{name}-{runtime}" for runtime in RUNTIMES)}
    return dict(sorted((shipped_device(each).runtime, each) for each in list_devices() if each in alike))


def with_runtime(name: str, runtime: str | None) -> Device:
    """The device of a name or file with a runtime; with None the one that it has.

    Where it was measured in another runtime only, its costs are borrowed, and a few measurements correct them
    (:func:`hw_profiles.calibrate`): in ``tflite`` and ``ncnn`` those of a device that ships with this runtime, by
    clock, with an interval of two times either way if the core is the same and of four times otherwise. In ``ort``
    they are those of ``host``, in ``torch`` those of ``ncnn``, and in ``c99`` those of the runtime that the device has:
    another core or software, with an interval of eight times. For a microcontroller ``c99`` are our own programs, see
    :func:`hw_profiles.devices.c99_program.with_c99_costs`; None is the software of its published latencies.

    Raises:
        InputError: no such device, or not with that runtime.

    >>> with_runtime("raspberry-pi-4", "ncnn").name, with_runtime("raspberry-pi-5", "ort").runtime
    ('raspberry-pi-4-ncnn', 'ort')
    >>> "costs of raspberry-pi-3-ncnn by clock" in with_runtime("raspberry-pi-zero-2-w", "ncnn").source
    True
    """
    device = load_device(name)
    if runtime == _C99 and runs_c99(device):
        return with_c99_costs(device)
    if runtime is None or device.runtime == runtime:
        return device
    known = runtimes(name) if name in list_devices() else {}
    if runtime in known:
        return load_device(known[runtime])
    if runtime == _ONNX_RUNTIME and not runs_c99(device):
        return _in_onnx_runtime(device)
    if runtime == _C99 and device.runtime != _ONNX_RUNTIME:
        return _unsure(replace(device, runtime=_C99), f"costs in {_C99} are those of {device.runtime}")
    lender = _lender(device, _UNPUBLISHED.get(runtime, runtime))
    if lender is None:
        valid = ", ".join(each for each in RUNTIMES if each == device.runtime or _offered(device, each))
        raise InputError(f"device {device.name} has no runtime {runtime!r} (valid: {valid})")
    return _borrowed(device, lender, runtime)


def _offered(device: Device, runtime: str) -> bool:
    if runtime == _ONNX_RUNTIME:
        return not runs_c99(device)
    if runtime == _C99:
        return device.runtime != _ONNX_RUNTIME
    return _lender(device, _UNPUBLISHED.get(runtime, runtime)) is not None


def _lender(device: Device, runtime: str) -> Device | None:
    """A device that ships with a runtime, of the same core if there is one, else of the nearest clock; for
    microcontrollers another microcontroller.
    """
    shipped = [shipped_device(name) for name in list_devices() if name != _STRUCTURE]
    alike = [each for each in shipped if each.runtime == runtime and runs_c99(each) == runs_c99(device)]
    return min(alike, key=lambda each: (not _same_core(each, device), abs(math.log(_pace(each, device)))), default=None)


def _borrowed(device: Device, lender: Device, runtime: str) -> Device:
    pace = _pace(lender, device)
    costs = {
        precision: {
            kind: replace(cost, coefficients=tuple(pace * each for each in cost.coefficients))
            for kind, cost in table.items()
        }
        for precision, table in lender.costs.items()
    }
    own = replace(device, runtime=runtime, channel_multiple=lender.channel_multiple, costs=costs, measurable=False)
    least = FACTOR_OF_TWO if _same_core(lender, device) else 2 * FACTOR_OF_TWO
    found = _unsure(own, f"no published latency in {runtime}: costs of {lender.name} by clock")
    if runtime != lender.runtime:
        return found
    return replace(
        found,
        spread={precision: max(least, lender.spread[precision]) for precision in costs},
        facts={**found.facts, **{name: fact for name, fact in lender.facts.items() if name in _OF_ITS_SOFTWARE}},
    )


def _same_core(one: Device, other: Device) -> bool:
    return bool(_cores(one) & _cores(other))


def _cores(device: Device) -> set[str]:
    core = device.facts.get("core")
    return set(_CORE.findall(str(core.value))) if core is not None else set()


def _pace(lender: Device, device: Device) -> float:
    """How many times as long a device takes by its clock; 1 where one of them states none."""
    theirs, own = lender.number("clock_mhz"), device.number("clock_mhz")
    return theirs / own if theirs and own else 1.0


def _in_onnx_runtime(device: Device) -> Device:
    host = shipped_device(_STRUCTURE)
    own = replace(device, runtime=_ONNX_RUNTIME, channel_multiple=host.channel_multiple, costs=host.costs)
    return _unsure(own, f"costs in {_ONNX_RUNTIME} are those of {host.name}, another core")


def _unsure(device: Device, said: str) -> Device:
    """With costs that nobody measured there, which its source says, and without the facts of other software."""
    return replace(
        device,
        source=f"{device.source}; {said}",
        spread=dict.fromkeys(device.costs, _UNKNOWN),
        facts={name: fact for name, fact in device.facts.items() if name not in _OF_ITS_SOFTWARE},
        held_out={},
        calibrated=(),
    )
