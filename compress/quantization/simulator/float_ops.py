"""Float operations of the simulator, for the operations of a mixed network that stay in float."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.quantization.simulator.integer_ops import function_of
from hw_profiles.network.workload import WEIGHTED, Op


def computed(op: Op, inputs: list[Tensor], weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """The output of an operation for float tensors; ``weight`` and ``bias`` are its own.

    >>> computed(Op("a", "activation", ("x",), function="relu6"), [torch.tensor([-1.0, 9.0])]).tolist()
    [0.0, 6.0]
    """
    if op.kind in WEIGHTED:
        assert weight is not None
        return weighted_sums(op, inputs[0], weight, bias)
    return _WITHOUT_WEIGHTS[op.kind](op, inputs)


def weighted_sums(op: Op, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution or linear layer; zeros lie outside the image."""
    if op.kind == "linear":
        return F.linear(x, weight, bias)
    if x.ndim == 3:  # one axis, as an image of one row
        return weighted_sums(op, x[:, :, None], weight[:, :, None], bias)[:, :, 0]
    top, left, bottom, right = op.padding
    if (top, left) == (bottom, right):
        return F.conv2d(x, weight, bias, op.stride, (top, left), op.dilation, op.groups)
    return F.conv2d(padded(op, x, 0.0), weight, bias, op.stride, 0, op.dilation, op.groups)


def padded(op: Op, x: Tensor, value: float) -> Tensor:
    """The image with ``value`` around it."""
    top, left, bottom, right = op.padding
    return F.pad(x, (left, right, top, bottom), value=value) if any(op.padding) else x


def largest(op: Op, x: Tensor, lowest: float = -math.inf) -> Tensor:
    """The largest number under each window; ``lowest`` lies outside the image."""
    return F.max_pool2d(padded(op, x, lowest), op.kernel_size, op.stride, dilation=op.dilation)


def means(op: Op, x: Tensor) -> Tensor:
    """The mean of what lies inside the image under each window."""
    ones = torch.ones_like(x[:1, :1])
    sums, counts = (
        F.avg_pool2d(padded(op, each, 0.0), op.kernel_size, op.stride, divisor_override=1) for each in (x, ones)
    )
    return sums / counts


_WITHOUT_WEIGHTS: Mapping[str, Callable[[Op, list[Tensor]], Tensor]] = {
    "activation": lambda op, inputs: function_of(op.function)(inputs[0]),
    "add": lambda op, inputs: inputs[0] + inputs[1],
    "mul": lambda op, inputs: inputs[0] * inputs[1],
    "matmul": lambda op, inputs: inputs[0] @ inputs[1],
    "global_avg_pool": lambda op, inputs: inputs[0].mean(tuple(range(2, inputs[0].ndim)), keepdim=True),
    "avg_pool": lambda op, inputs: means(op, inputs[0]),
    "max_pool": lambda op, inputs: largest(op, inputs[0]),
    "concat": lambda op, inputs: torch.cat(inputs, 1),
    "flatten": lambda op, inputs: inputs[0].flatten(1),
}
