"""A device with another of the runtimes that it can be estimated for."""

from __future__ import annotations

import math
from dataclasses import replace

from hw_profiles.devices.device import Device
from hw_profiles.devices.device_file import list_devices, load_device, shipped_device
from hw_profiles.errors import InputError
from hw_profiles.runtimes.fusion import RUNTIMES

_ONNX_RUNTIME, _STRUCTURE = "ort", "host"  # whose kinds of kernels are those of ONNX Runtime
_C99 = "c99"
_UNKNOWN = math.log(8) / 1.645  # a 90 % interval of eight times either way: costs of another core or another runtime


def runtimes(name: str) -> dict[str, str]:
    """The runtimes for which a device ships, each with the device of that runtime.

    >>> runtimes("raspberry-pi-4")
    {'ncnn': 'raspberry-pi-4-ncnn', 'tflite': 'raspberry-pi-4'}
    """
    alike = {name, *(f"{name}-{runtime}" for runtime in RUNTIMES)}
    return dict(sorted((shipped_device(each).runtime, each) for each in list_devices() if each in alike))


def with_runtime(name: str, runtime: str | None) -> Device:
    """The device of a name or file with a runtime; with None the one that it has.

    Where it was measured in another runtime only, it is a start from which measurements correct its costs
    (:func:`hw_profiles.calibrate`), with an interval of eight times either way: for ONNX Runtime on a computer the
    costs are those of ``host``, another core; for plain C they are those of the runtime that it has.

    Raises:
        InputError: no such device, or not with that runtime.

    >>> with_runtime("raspberry-pi-4", "ncnn").name, with_runtime("raspberry-pi-5", "ort").runtime
    ('raspberry-pi-4-ncnn', 'ort')
    """
    device = load_device(name)
    if runtime is None or device.runtime == runtime:
        return device
    known = runtimes(name) if name in list_devices() else {}
    if runtime in known:
        return load_device(known[runtime])
    if runtime == _ONNX_RUNTIME and device.runtime != _C99:
        return _in_onnx_runtime(device)
    if runtime == _C99 and device.runtime != _ONNX_RUNTIME:
        return _unsure(replace(device, runtime=_C99), f"those of {device.runtime}")
    starts = {_ONNX_RUNTIME, _C99} if device.runtime not in (_ONNX_RUNTIME, _C99) else set()
    valid = ", ".join(sorted({*known, device.runtime, *starts}))
    raise InputError(f"device {device.name} has no runtime {runtime!r} (valid: {valid})")


def _in_onnx_runtime(device: Device) -> Device:
    host = shipped_device(_STRUCTURE)
    own = replace(device, runtime=_ONNX_RUNTIME, channel_multiple=host.channel_multiple, costs=host.costs)
    return _unsure(own, f"those of {host.name}, another core")


def _unsure(device: Device, costs: str) -> Device:
    """With costs that nobody measured there."""
    return replace(
        device,
        source=f"{device.source}; costs in {device.runtime} are {costs}",
        spread=dict.fromkeys(device.costs, _UNKNOWN),
        held_out={},
        calibrated=(),
    )
