"""What a kernel's time depends on: the quantities that have a price, and the place where the price is corrected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hw_profiles.network.workload import Op, Shape, Workload
from hw_profiles.runtimes.kernels import Kernel
from hw_profiles.runtimes.ort_float import BLOCK, padded

_LANES = 16  # integers that a kernel takes at once
_CROWDS = (20, 60, 200)  # nodes after which each finds the caches and branch predictors full of the others
_ROW = 6  # output positions that a float kernel takes at once

WORK: dict[str, tuple[str, ...]] = {
    "call": ("start", "nodes", "few", "crowd", "throng"),
    "fused": ("mvalues",),
    "conv": ("start", "mmacs", "mmacs_in_rows", "mpasses", "input_mb", "output_mb", "weight_mb"),
    "integer_conv": ("start", "mmacs", "mpasses", "mvalues", "mpositions", "weight_mb", "mrest"),
    "integer_depthwise": ("start", "mmacs", "mmacs_half", "mmacs_rest", "mtaps", "mvalues", "mrest"),
    "other": ("start", "mvalues", "kchannels", "mrows", "mrest", "mmacs"),
}
"""The priced quantities of each family of kernels: one start, and millions, megabytes or thousands of the others."""

_IN_A_CROWD = 5.0
_CONV_SCALES = (2.2, 3.5, 2.0, 3.0, 1.3, 1.0, _IN_A_CROWD)
SCALES: dict[str, tuple[float, ...]] = {
    "call": (),
    "fused": (2.0, _IN_A_CROWD),
    "conv": _CONV_SCALES,
    "integer_conv": _CONV_SCALES,
    "integer_depthwise": _CONV_SCALES,
    "other": (2.0, 1.5, 1.5, _IN_A_CROWD),
}
"""How far two places of a family are alike, by coordinate: mostly doublings of a size, the last one of the crowd."""


@dataclass(slots=True, unsafe_hash=True)  # frozen ones take four times as long to make
class Term:
    """A part of a network's time. ``kind`` is its family and what it is there, such as ``conv/pointwise.blocked``;
    ``work`` are the quantities of the family in the order of :data:`WORK`; ``place`` are its coordinates: what the
    kernel is, and last how large the crowd is, see :func:`crowd_of`.
    """

    kind: Final[str]
    place: Final[tuple[float, ...]]
    work: Final[tuple[float, ...]]


def family(kind: str) -> str:
    """The family of a kind of term.

    >>> family("conv/pointwise.blocked")
    'conv'
    """
    return kind.partition("/")[0]


def network_terms(workload: Workload, kernels: Sequence[Kernel]) -> list[Term]:
    """The terms of all kernels, and of one call.

    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> [t.kind for t in network_terms(w, fuse(w))][:3]
    ['call/call', 'conv/conv.first', 'conv/conv.blocked']
    """
    nodes = sum(len(kernel.nodes) for kernel in kernels)
    alone = [term for kernel in kernels for term in kernel_terms(workload, kernel)]
    return [call_term(nodes), *in_a_crowd(alone, crowd_of(nodes))]


def call_term(nodes: int) -> Term:
    """The term of one call of a network of so many runtime nodes."""
    return Term("call/call", (), (1.0, float(nodes), *[nodes * (1 - math.exp(-nodes / many)) for many in _CROWDS]))


def crowd_of(nodes: int) -> float:
    """The coordinate that says among how many runtime nodes a kernel runs, in half doublings: the more, the fewer of
    its instructions and weights it finds in the caches.

    >>> crowd_of(16), crowd_of(17), crowd_of(20)
    (4.0, 4.0, 4.5)
    """
    return round(2 * _log(nodes)) / 2


def in_a_crowd(terms: Sequence[Term], crowd: float) -> list[Term]:
    """The terms of :func:`kernel_terms` as they are in a network of such a crowd."""
    return [Term(term.kind, (*term.place, crowd), term.work) for term in terms]


def kernel_terms(workload: Workload, kernel: Kernel) -> list[Term]:
    """The terms of one kernel: one of its first operation, and one for each other that costs something. Their places
    lack the crowd.
    """
    if kernel.ops and kernel.ops[0].kind in ("conv", "linear", "conv_transpose") and kernel.ops[0].weight_shape:
        return _weighted(workload, kernel)
    return [_other(workload, kernel)]


def _weighted(workload: Workload, kernel: Kernel) -> list[Term]:
    op = kernel.ops[0]
    shape = workload.shapes[op.name]
    positions = math.prod(shape) // op.out_channels
    window = math.prod(op.weight_shape[2:])
    if kernel.layout == "last":
        main = _integer_depthwise if kernel.kind == "depthwise" else _integer_conv
        return [main(kernel, op, positions, window)]
    read = workload.tensor_bytes(kernel.inputs[0].partition("@")[0])
    columns = shape[3] if len(shape) == 4 else 1
    terms = [_conv(kernel, op, (positions, columns, window), read)]
    where = "plain" if kernel.layout == "plain" else "blocked"
    for added in kernel.ops[1:]:
        if added.function != "relu":  # a ReLU is part of the convolution's last step
            values = math.prod(workload.shapes[added.name])
            name = "sum" if added.kind == "add" else added.function
            terms.append(Term(f"fused/{name}.{where}", (_log(values),), (values / 1e6,)))
    return terms


def _conv(kernel: Kernel, op: Op, sizes: tuple[int, int, int], read: int) -> Term:
    positions, columns, window = sizes
    in_channels, out_channels = op.weight_shape[1], op.out_channels
    in_rows = positions // columns * _up(columns, _ROW) if window > 1 else _up(positions, _ROW)
    taps = (1 if op.depthwise else in_channels) * window
    outputs = out_channels
    if kernel.layout in ("blocked", "first"):
        outputs = padded(out_channels)
        if kernel.layout == "blocked" and not op.depthwise:
            taps = padded(in_channels) * window
        blocks = outputs // BLOCK
        passes = (blocks if op.depthwise else math.ceil(blocks / 4)) * taps * in_rows
    else:
        in_rows = positions
        passes = taps * positions * (out_channels if op.depthwise else 1)
    work = (
        1.0,
        outputs * taps * positions / 1e6,
        outputs * taps * in_rows / 1e6,
        passes / 1e6,
        read / 1e6,
        kernel.output_bytes / 1e6,
        kernel.weight_bytes / 1e6,
    )
    rest = out_channels % _LANES / out_channels if op.depthwise else 0.0
    variant = f".{op.kernel_size[0]}" if op.depthwise and kernel.layout == "plain" else ""
    return Term(f"conv/{kernel.kind}.{kernel.layout}{variant}", _place(op, positions, window, rest), work)


def _integer_conv(kernel: Kernel, op: Op, positions: int, window: int) -> Term:
    taps, out_channels = op.weight_shape[1] * window, op.out_channels
    # Seen on x86: other kernels run where rows or columns do not fill the registers.
    if out_channels < _LANES:
        variant = "narrow"
    elif out_channels % 4:
        variant = "odd_out"
    else:
        variant = "odd_in" if taps % 4 else "aligned"
    work = (
        1.0,
        _up(taps, 4) * _up(out_channels, _LANES) * positions / 1e6,
        taps * positions / 1e6,
        out_channels * positions / 1e6,
        positions / 1e6,
        kernel.weight_bytes / 1e6,
        positions * (out_channels % _LANES) / 1e6,
    )
    return Term(f"integer_conv/{kernel.kind}.{variant}", _place(op, positions, window, 0.0), work)


def _integer_depthwise(kernel: Kernel, op: Op, positions: int, window: int) -> Term:
    channels = op.out_channels
    half, rest = channels % _LANES // 8, channels % 8
    work = (
        1.0,
        channels // _LANES * window * positions / 1e6,
        half * window * positions / 1e6,
        rest * window * positions / 1e6,
        window * positions / 1e6,
        channels * positions / 1e6,
        (rest > 0) * positions / 1e6,
    )
    share = 4 * (8 * half + 2 * rest) / (channels + 8)
    return Term(f"integer_depthwise/{kernel.kind}", _place(op, positions, window, share), work)


def _other(workload: Workload, kernel: Kernel) -> Term:
    names = [name.partition("@")[0] for name in (*kernel.inputs, kernel.output)]
    sizes = [math.prod(workload.shapes[name]) for name in names]
    values = max(sizes)
    channels = _channels(workload.shapes[names[0]])
    each = ".each" if kernel.kind == "mul" and min(sizes) < values else ""  # one factor for each channel
    work = (
        1.0,
        values / 1e6,
        channels / 1e3,
        values / channels / 1e6,
        channels % _LANES * values / channels / 1e6,
        (kernel.macs or _pooled(kernel, sizes[-1])) / 1e6,
    )
    place = (_log(values), _log(channels), 4 * (channels % _LANES) / channels)
    return Term(f"other/{_name(kernel)}.{kernel.layout}{each}", place, work)


def _pooled(kernel: Kernel, outputs: int) -> int:
    """Values that windows read, all together."""
    return outputs * math.prod(kernel.ops[0].kernel_size) if kernel.kind == "pool" else 0


def _name(kernel: Kernel) -> str:
    if not kernel.ops:
        return kernel.kind
    op = kernel.ops[0]
    return op.function if op.kind == "activation" else op.kind


def _channels(shape: Shape) -> int:
    return shape[1] if len(shape) > 1 else 1


def _place(op: Op, positions: int, window: int, rest: float) -> tuple[float, ...]:
    in_channels = 1 if op.depthwise else op.weight_shape[1]
    return (
        _log(in_channels), _log(op.out_channels), _log(positions), math.sqrt(window), float(op.stride[0] - 1), rest
    )  # fmt: skip


def _log(value: float) -> float:
    return math.log2(value) if value > 1 else 0.0


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
