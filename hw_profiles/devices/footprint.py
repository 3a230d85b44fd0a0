"""RAM and flash of a network on a device."""

from __future__ import annotations

from collections.abc import Sequence

from hw_profiles.devices.device import Device
from hw_profiles.memory.planner import plan
from hw_profiles.network.workload import Workload
from hw_profiles.runtimes.fusion import Kernel

_PADDING = 0.02  # zeros that align the rows of weights of a C99 program
_DESCRIPTION_BYTES, _TABLE_BYTES = 52, 256  # of a layer of a C99 program, and of a function of one integer
_WITHOUT_TABLE = ("relu", "relu6", "clip", "none")


def ram_bytes(workload: Workload, kernels: Sequence[Kernel], device: Device) -> int:
    """Activations as the runtime places them, and what the device's file says that the runtime takes beside them.

    >>> from hw_profiles.devices.device_file import load_device
    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload().with_precision("int8")
    >>> ram_bytes(w, fuse(w), load_device("host"))
    49152
    """
    return plan(workload, kernels, device.runtime).arena_bytes + _whole(device, "runtime_ram_bytes")


def flash_bytes(workload: Workload, kernels: Sequence[Kernel], device: Device) -> int:
    """Weights with their scales, and what the device's file says that the runtime takes beside them. Where that is the
    code of a C99 program, its descriptions of layers, tables and zeros between the weights count as well.

    >>> from hw_profiles.devices.device_file import load_device
    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload().with_precision("int8")
    >>> flash_bytes(w, fuse(w), load_device("host")) == w.weight_bytes
    True
    """
    code = _whole(device, "runtime_flash_bytes")
    if device.runtime != "c99" or not code:
        return workload.weight_bytes + code
    tables = sum(
        op.kind == "activation" and op.function not in _WITHOUT_TABLE for kernel in kernels for op in kernel.ops
    )
    padded = round((1 + _PADDING) * workload.weight_bytes)
    return padded + _DESCRIPTION_BYTES * len(kernels) + _TABLE_BYTES * tables + code


def _whole(device: Device, fact: str) -> int:
    return round(device.number(fact) or 0)
