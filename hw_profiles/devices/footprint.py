"""RAM and flash of a network on a device."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hw_profiles.devices.c99_program import deploys_c99
from hw_profiles.devices.device import Device
from hw_profiles.memory.planner import plan
from hw_profiles.network.workload import Op, Workload
from hw_profiles.runtimes.fusion import Kernel

_VECTOR = 32  # numbers; rows of weights are filled up with zeros to a multiple
_PADDING = 0.02  # zeros that align the rows of weights of a C99 program
_DESCRIPTION_BYTES, _TABLE_BYTES = 52, 256  # of a layer of a C99 program, and of a function of one integer
_WITHOUT_TABLE = ("relu", "relu6", "clip", "none")


def ram_bytes(workload: Workload, kernels: Sequence[Kernel], device: Device) -> int:
    """Activations as the runtime places them, and what the device's file says that the runtime takes beside them. Where
    that is the stack of a C99 program, the buffers of its kernels count as well.

    >>> from hw_profiles.devices.device_file import load_device
    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload().with_precision("int8")
    >>> ram_bytes(w, fuse(w), load_device("host"))
    49152
    """
    buffers = _buffer_bytes(workload, kernels) if deploys_c99(device) else 0
    return plan(workload, kernels, device.runtime).arena_bytes + buffers + runtime_bytes(device)[0]


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
    code = runtime_bytes(device)[1]
    if not deploys_c99(device):
        return workload.weight_bytes + code
    tables = sum(
        op.kind == "activation" and op.function not in _WITHOUT_TABLE for kernel in kernels for op in kernel.ops
    )
    padded = round((1 + _PADDING) * workload.weight_bytes)
    return padded + _DESCRIPTION_BYTES * len(kernels) + _TABLE_BYTES * tables + code


def _buffer_bytes(workload: Workload, kernels: Sequence[Kernel]) -> int:
    """What the kernels of a C99 program keep on the stack at most: the numbers under one window, four bytes each, and
    two bytes more where they are copied; or the lines under a depthwise window as pairs of 16 bits."""
    under_window, copied, lines = 0, 0, 0
    for op in (kernel.ops[0] for kernel in kernels):
        if op.kind != "conv" or len(op.weight_shape) != 4:
            continue
        if op.depthwise:
            lines = max(lines, _line_pairs(op, workload.shapes[op.name][3]))
            continue
        if op.kernel_size == workload.shapes[op.inputs[0]][2:] and not any(op.padding):
            continue  # the whole image is read in place
        numbers = -(-math.prod(op.weight_shape[1:]) // _VECTOR) * _VECTOR
        under_window = max(under_window, numbers)
        if math.prod(op.kernel_size) > 1 or any(op.padding):
            copied = max(copied, numbers)
    return max(4 * under_window + 2 * copied, 4 * lines)


def _line_pairs(op: Op, columns: int) -> int:
    rows, words = op.kernel_size[0], (op.kernel_size[1] + 1) // 2
    return rows * (((columns * op.stride[1] + 2 * words) + 1) // 2 + 2 * words)


def runtime_bytes(device: Device) -> tuple[int, int]:
    """RAM and flash that the runtime takes beside activations and weights, 0 where the device's file does not say.

    >>> from hw_profiles.devices.device_file import load_device
    >>> runtime_bytes(load_device("host"))
    (0, 0)
    """
    return round(device.number("runtime_ram_bytes") or 0), round(device.number("runtime_flash_bytes") or 0)
