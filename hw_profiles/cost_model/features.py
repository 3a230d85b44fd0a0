"""Features of the time of a kernel: quantities for a linear model, and coordinates for its corrections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hw_profiles.network.activations import activation
from hw_profiles.network.workload import Op, Shape, Workload
from hw_profiles.runtimes.kernels import Kernel
from hw_profiles.runtimes.ort_float import BLOCK, padded

_LANES = 16  # integers that a kernel takes at once
_NODE_COUNTS = (20, 60, 200)  # nodes after which each finds the caches and branch predictors full of the others
_ROW = 6  # output positions that a float kernel takes at once

QUANTITIES: dict[str, tuple[str, ...]] = {
    "call": ("start", "nodes", "nodes_past_20", "nodes_past_60", "nodes_past_200"),
    "fused": ("mvalues",),
    "conv": ("start", "mmacs", "mmacs_in_rows", "mpasses", "input_mb", "output_mb", "weight_mb"),
    "integer_conv": ("start", "mmacs", "mpasses", "mvalues", "mpositions", "weight_mb", "mrest"),
    "integer_depthwise": ("start", "mmacs", "mmacs_half", "mmacs_rest", "mtaps", "mvalues", "mrest"),
    "other": ("start", "mvalues", "kchannels", "mrows", "mrest", "mmacs"),
    "layer": ("start", "mmacs", "moved_mb", "weight_mb"),
}
"""The quantities of each family of kernels that a device has a coefficient for: one start, and millions, megabytes or
thousands of the others."""

_NETWORK_SIZE_SCALE = 5.0
_CONV_SCALES = (2.2, 3.5, 2.0, 3.0, 1.3, 1.0, _NETWORK_SIZE_SCALE)
SCALES: dict[str, tuple[float, ...]] = {
    "call": (),
    "fused": (2.0, _NETWORK_SIZE_SCALE),
    "conv": _CONV_SCALES,
    "integer_conv": _CONV_SCALES,
    "integer_depthwise": _CONV_SCALES,
    "other": (2.0, 1.5, 1.5, _NETWORK_SIZE_SCALE),
    "layer": (),
}
"""Length scales of each coordinate of a family: mostly doublings of a size, the last one of the network size."""


@dataclass(slots=True, unsafe_hash=True)  # frozen ones take four times as long to make
class CostFeatures:
    """A part of a network's time. ``kind`` is its family and what it is there, such as ``conv/pointwise.blocked``;
    ``quantities`` are the quantities of the family in the order of :data:`QUANTITIES`; ``coordinates`` are its
    coordinates: what the kernel is, and last the size of the network around it, see :func:`size_coordinate`.
    """

    kind: Final[str]
    coordinates: Final[tuple[float, ...]]
    quantities: Final[tuple[float, ...]]


def family(kind: str) -> str:
    """The family of a kind of kernel.

    >>> family("conv/pointwise.blocked")
    'conv'
    """
    return kind.partition("/")[0]


def network_features(workload: Workload, kernels: Sequence[Kernel]) -> list[CostFeatures]:
    """The features of all kernels, and of one call.

    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> [t.kind for t in network_features(w, fuse(w))][:3]
    ['call/call', 'conv/conv.first', 'conv/conv.blocked']
    """
    nodes = sum(len(kernel.nodes) for kernel in kernels)
    alone = [features for kernel in kernels for features in kernel_features(workload, kernel)]
    return [call_features(nodes), *in_network_of_size(alone, size_coordinate(nodes))]


def call_features(nodes: int) -> CostFeatures:
    """The features of one call of a network of so many runtime nodes."""
    return CostFeatures(
        "call/call", (), (1.0, float(nodes), *[nodes * (1 - math.exp(-nodes / many)) for many in _NODE_COUNTS])
    )


def size_coordinate(nodes: int) -> float:
    """The coordinate that says among how many runtime nodes a kernel runs, in half doublings: the more, the fewer of
    its instructions and weights it finds in the caches.

    >>> size_coordinate(16), size_coordinate(17), size_coordinate(20)
    (4.0, 4.0, 4.5)
    """
    return round(2 * _log(nodes)) / 2


def in_network_of_size(all_features: Sequence[CostFeatures], network_size: float) -> list[CostFeatures]:
    """The features of :func:`kernel_features` with the coordinate of the network size."""
    return [
        CostFeatures(features.kind, (*features.coordinates, network_size), features.quantities)
        for features in all_features
    ]


def kernel_features(workload: Workload, kernel: Kernel) -> list[CostFeatures]:
    """The features of one kernel: one of its first operation, and one for each other that costs something. Their
    coordinates lack the network size.
    """
    if kernel.layout == "any":
        return [layer_features(workload, kernel)]
    if kernel.ops and kernel.ops[0].kind in ("conv", "linear", "conv_transpose") and kernel.ops[0].weight_shape:
        return _weighted(workload, kernel)
    return [_other(workload, kernel)]


LAYER_KINDS = (
    "first", "conv", "pointwise", "depthwise", "grouped", "conv_transpose", "linear", "matmul", "elementwise",
    "nonlinear", "pool", "copy",
)  # fmt: skip
"""The kinds of the family ``layer``. ``first`` is a convolution of an image's channels, ``nonlinear`` any function
with an exponential, ``copy`` whatever only moves numbers or is unknown."""
_IMAGE_CHANNELS = 4
_ELEMENTWISE = ("add", "mul", "affine")


def layer_features(workload: Workload, kernel: Kernel) -> CostFeatures:
    """The features of one kernel of a runtime whose layouts are not modeled: what can be learnt from whole networks
    that others have measured.

    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> layer_features(w, fuse(w, "tflite")[0]).kind
    'layer/first'
    """
    names = {name.partition("@")[0] for name in (*kernel.inputs, kernel.output)}
    moved = sum([workload.tensor_bytes(name) for name in names])
    quantities = (1.0, kernel.macs / 1e6, moved / 1e6, kernel.weight_bytes / 1e6)
    return CostFeatures(f"layer/{_layer_kind(kernel)}", (), quantities)


def _layer_kind(kernel: Kernel) -> str:
    op = kernel.ops[0]
    if kernel.kind == "conv" and op.weight_shape[1] <= _IMAGE_CHANNELS:
        return "first"
    if op.kind in _ELEMENTWISE:
        return "elementwise"
    if op.kind == "activation":
        return "elementwise" if activation(op.function).cheap else "nonlinear"
    return kernel.kind if kernel.kind in LAYER_KINDS else "copy"


def _weighted(workload: Workload, kernel: Kernel) -> list[CostFeatures]:
    op = kernel.ops[0]
    shape = workload.shapes[op.name]
    positions = math.prod(shape) // op.out_channels
    window = math.prod(op.weight_shape[2:])
    if kernel.layout == "last":
        main = _integer_depthwise if kernel.kind == "depthwise" else _integer_conv
        return [main(kernel, op, positions, window)]
    read = workload.tensor_bytes(workload.tensor_of(kernel.inputs[0]))
    columns = shape[3] if len(shape) == 4 else 1
    all_features = [_conv(kernel, op, (positions, columns, window), read)]
    where = "plain" if kernel.layout == "plain" else "blocked"
    for added in kernel.ops[1:]:
        if added.function != "relu":  # a ReLU is part of the convolution's last step
            values = math.prod(workload.shapes[added.name])
            name = "sum" if added.kind == "add" else added.function
            all_features.append(CostFeatures(f"fused/{name}.{where}", (_log(values),), (values / 1e6,)))
    return all_features


def _conv(kernel: Kernel, op: Op, sizes: tuple[int, int, int], read: int) -> CostFeatures:
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
    quantities = (
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
    return CostFeatures(
        f"conv/{kernel.kind}.{kernel.layout}{variant}", _coordinates(op, positions, window, rest), quantities
    )


def _integer_conv(kernel: Kernel, op: Op, positions: int, window: int) -> CostFeatures:
    taps, out_channels = op.weight_shape[1] * window, op.out_channels
    # Seen on x86: other kernels run where rows or columns do not fill the registers.
    if out_channels < _LANES:
        variant = "narrow"
    elif out_channels % 4:
        variant = "odd_out"
    else:
        variant = "odd_in" if taps % 4 else "aligned"
    quantities = (
        1.0,
        _up(taps, 4) * _up(out_channels, _LANES) * positions / 1e6,
        taps * positions / 1e6,
        out_channels * positions / 1e6,
        positions / 1e6,
        kernel.weight_bytes / 1e6,
        positions * (out_channels % _LANES) / 1e6,
    )
    return CostFeatures(f"integer_conv/{kernel.kind}.{variant}", _coordinates(op, positions, window, 0.0), quantities)


def _integer_depthwise(kernel: Kernel, op: Op, positions: int, window: int) -> CostFeatures:
    channels = op.out_channels
    half, rest = channels % _LANES // 8, channels % 8
    quantities = (
        1.0,
        channels // _LANES * window * positions / 1e6,
        half * window * positions / 1e6,
        rest * window * positions / 1e6,
        window * positions / 1e6,
        channels * positions / 1e6,
        (rest > 0) * positions / 1e6,
    )
    share = 4 * (8 * half + 2 * rest) / (channels + 8)
    return CostFeatures(f"integer_depthwise/{kernel.kind}", _coordinates(op, positions, window, share), quantities)


def _other(workload: Workload, kernel: Kernel) -> CostFeatures:
    names = [workload.tensor_of(name) for name in (*kernel.inputs, kernel.output)]
    sizes = [math.prod(workload.shapes[name]) for name in names]
    values = max(sizes)
    channels = _channels(workload.shapes[names[0]])
    each = ".each" if kernel.kind == "mul" and min(sizes) < values else ""  # one factor for each channel
    quantities = (
        1.0,
        values / 1e6,
        channels / 1e3,
        values / channels / 1e6,
        channels % _LANES * values / channels / 1e6,
        (kernel.macs or _pooled(kernel, sizes[-1])) / 1e6,
    )
    coordinates = (_log(values), _log(channels), 4 * (channels % _LANES) / channels)
    return CostFeatures(f"other/{_name(kernel)}.{kernel.layout}{each}", coordinates, quantities)


def _pooled(kernel: Kernel, outputs: int) -> int:
    """Values that windows read, all together."""
    return outputs * math.prod(kernel.ops[0].kernel_size) if kernel.kind == "pool" else 0


def _name(kernel: Kernel) -> str:
    if not kernel.ops:
        return kernel.kind
    op = kernel.ops[0]
    return op.function if op.kind == "activation" else op.kind


def _channels(shape: Shape) -> int:
    """The first side behind the batch of one image, which may have been merged into it."""
    return shape[1] if len(shape) > 1 and shape[0] == 1 else shape[0]


def _coordinates(op: Op, positions: int, window: int, rest: float) -> tuple[float, ...]:
    in_channels = 1 if op.depthwise else op.weight_shape[1]
    return (
        _log(in_channels), _log(op.out_channels), _log(positions), math.sqrt(window), float(op.stride[0] - 1), rest
    )  # fmt: skip


def _log(value: float) -> float:
    return math.log2(value) if value > 1 else 0.0


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
