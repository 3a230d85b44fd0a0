"""Which kernels may overwrite their input, and the scratch memory that they need for it."""

from __future__ import annotations

from collections.abc import Collection

from hw_profiles.network.workload import Op, Workload
from hw_profiles.runtimes.fusion import Kernel

CHANNELS_AT_ONCE = 16
"""Channels of an image that a C99 depthwise or pooling kernel takes at a time; its line buffer holds no more."""

# Functions that ONNX Runtime 1.32 computes over their input in float32, seen by the memory that chains of them take.
# Sums, products, SiLU (QuickGelu) and hard-swish are not among them, nor is any kernel of integers.
_ORT_FUNCTIONS = ("relu", "relu6", "sigmoid", "hard_sigmoid", "tanh", "leaky_relu", "elu", "softmax")
_ELEMENTWISE = ("add", "mul", "activation", "affine")
_WINDOWS = ("depthwise", "pool")


def overwritable(workload: Workload, kernel: Kernel, runtime: str = "ort") -> tuple[str, ...]:
    """The inputs that ``kernel`` may write its output over, if nobody reads them later; the preferred one first.

    ``"ort"``: an activation in float32 overwrites its input, and a convolution the summand that it took up. The
    network's input and output are the caller's tensors: the first is never overwritten, the second lies nowhere else.

    ``"c99"``: elementwise kernels overwrite an input of the output's size. Depthwise convolutions and pooling
    overwrite theirs where the output has no more rows, columns or channels, see :func:`line_buffer_rows`, unless the
    scratch would be as large as what it saves.

    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("mobilenetv2_035").workload().with_precision("int8")
    >>> [overwritable(w, kernel, "c99") for kernel in fuse(w, "c99")[:2]]
    [(), ('stem.act',)]
    """
    if runtime == "ort":
        return overwritable_ort(workload, kernel, (workload.input, workload.output))
    if kernel.kind in _ELEMENTWISE:
        return tuple(name for name in kernel.inputs if workload.tensor_bytes(name) == kernel.output_bytes)
    if kernel.kind in _WINDOWS and _shrinks(workload, kernel):
        saves = scratch_bytes(workload, kernel, runtime) < kernel.output_bytes
        return kernel.inputs if saves else ()
    return ()


def overwritable_ort(workload: Workload, kernel: Kernel, kept: Collection[str]) -> tuple[str, ...]:
    """As :func:`overwritable` for ONNX Runtime, in a stretch of a network of which the tensors ``kept`` are the
    caller's.
    """
    names: tuple[str, ...] = ()
    if kernel.kind == "activation" and kernel.ops[0].function in _ORT_FUNCTIONS:
        names = kernel.inputs
    elif len(kernel.ops) > 1 and kernel.ops[1].kind == "add":
        names = kernel.inputs[1:]
    if not names or kernel.output in kept or not workload.format(kernel.output).floating:
        return ()
    return tuple([name for name in names if name not in kept])


def scratch_bytes(workload: Workload, kernel: Kernel, runtime: str = "ort") -> int:
    """Bytes that ``kernel`` needs beside its tensors when it writes over an input; otherwise it needs none.

    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("mobilenetv2_035").workload().with_precision("int8")
    >>> scratch_bytes(w, fuse(w, "c99")[1], "c99")  # two rows of 112 pixels and 16 channels
    3584
    """
    if runtime == "ort" or kernel.kind not in _WINDOWS:
        return 0
    name = kernel.inputs[0]
    _, channels, _, columns = workload.shapes[name]
    rows = line_buffer_rows(kernel.ops[0], workload.shapes[name], workload.shapes[kernel.output])
    return workload.format(name).bytes(rows * columns * min(channels, CHANNELS_AT_ONCE))


def line_buffer_rows(op: Op, read: tuple[int, ...], written: tuple[int, ...]) -> int:
    """Rows of its input that a window over each channel must keep aside to write its output over that input.

    Both lie with the channels last, from the same byte on, and the output is made pixel by pixel in rows from the top.
    A channel's outputs fall on its own inputs only, so some channels can be taken at a time. Row ``r`` of an output
    with ``w`` columns ends before pixel ``(r + 1) * w``, in row ``ceil((r + 1) * w / W) - 1`` of an input with ``W``
    columns: the rows up to there are copied into the buffer before row ``r`` is computed, and read from it. Row ``r``
    and those after it read no row before ``r * stride - padding``. Because ``w <= W`` and ``stride >= 1``, the rows
    that are overwritten but still read are most numerous at ``r = padding // stride``, the last one that reads row 0.
    Where the stride is greater than the padding in both directions, each pixel falls on one that no later window reads:
    nothing is kept.

    >>> line_buffer_rows(Op("dw", "conv", ("x",), padding=(2, 2, 2, 2)), (1, 8, 9, 9), (1, 8, 9, 9))
    3
    """
    top, left = op.padding[:2]
    if op.stride[0] > top and op.stride[1] > left:
        return 0
    rows = min(top // op.stride[0] + 1, written[2])
    return min(-(-rows * written[3] // read[3]), read[2])


def _shrinks(workload: Workload, kernel: Kernel) -> bool:
    read, written = workload.shapes[kernel.inputs[0]], workload.shapes[kernel.output]
    same_format = workload.format(kernel.inputs[0]).bits == workload.format(kernel.output).bits
    if not same_format or len(read) != 4 or len(written) != 4 or read[1] != written[1]:
        return False
    return written[2] <= read[2] and written[3] <= read[3]
