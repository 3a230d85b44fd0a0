"""8-bit integers as whole numbers in float32 tensors: what ONNX Runtime's kernels compute, and gradients through it.

A tensor holds its integers less their zero point, so that zero stands for zero and padding adds zeros. Sums of products
are exact below 2**24, whatever their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hw_profiles.errors import InputError

_SIXTH = 1 / 6


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Whole numbers from ``low`` to ``high`` that stand for ``scale`` times themselves; ``scale`` is of shape ()."""

    scale: Tensor
    zero_point: int
    low: int
    high: int

    @classmethod
    def of(cls, scale: Tensor, zero_point: int, *, signed: bool) -> Grid:
        """The 256 integers of a scale and zero point.

        >>> Grid.of(torch.tensor(0.5), 3, signed=False).low
        -3
        """
        lowest = -128 if signed else 0
        return cls(scale, zero_point, lowest - zero_point, lowest + 255 - zero_point)

    @property
    def largest(self) -> int:
        """The largest magnitude."""
        return max(-self.low, self.high)

    def within(self, function: str) -> Grid:
        """What a ReLU that the saturation absorbs lets through."""
        if function == "none":
            return self
        high = self.high if function == "relu" else min(self.high, round(6 / self.scale.detach().item()))
        return replace(self, low=max(self.low, 0), high=high)


class _Rounded(torch.autograd.Function):
    """Saturated and rounded half to even; the gradient goes through where nothing was cut off (1902.08153)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward((x >= low) & (x <= high))
        return x.clamp(low, high).round_()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None


def rounded(x: Tensor, low: float, high: float) -> Tensor:
    """Saturate and round half to even: in place, or with a gradient where gradients are wanted.

    >>> rounded(torch.tensor([0.5, 1.5, 9.0]), -4, 4).tolist()
    [0.0, 2.0, 4.0]
    """
    if torch.is_grad_enabled():
        found: Tensor = _Rounded.apply(x, low, high)
        return found
    return x.clamp_(low, high).round_()


def quantized(x: Tensor, to: Grid) -> Tensor:
    """Numbers as integers: divided in float32, saturated, rounded half to even."""
    return rounded(x / to.scale, to.low, to.high)


def requantized(x: Tensor, before: Grid, to: Grid) -> Tensor:
    """The same numbers on another grid."""
    return x if before is to else applied("none", x, before, to)


def applied(function: str, x: Tensor, before: Grid, to: Grid) -> Tensor:
    """A function of one number, in float32 between two grids.

    >>> a, b = (Grid.of(torch.tensor(scale), 0, signed=True) for scale in (1.0, 0.5))
    >>> applied("relu", torch.tensor([-3.0, 2.0]), a, b).tolist()
    [0.0, 4.0]
    """
    output = function_of(function)(x * before.scale)
    return quantized(output, to) if torch.is_grad_enabled() else rounded(output.div_(to.scale), to.low, to.high)


def along_channels(values: Tensor, x: Tensor, *, last: bool) -> Tensor:
    """One number for each channel of a tensor, which are its ``last`` axis or the second.

    >>> along_channels(torch.ones(5), torch.zeros(1, 5, 4, 4), last=False).shape
    torch.Size([5, 1, 1])
    """
    return values if last else values.view(-1, *[1] * (x.ndim - 2))


def scaled(sums: Tensor, multiplier: Tensor, to: Grid) -> Tensor:
    """Exact sums, times a float32 number for all or one each (broadcast), as integers; ``sums`` is used up."""
    return rounded(_times(sums.float(), multiplier), to.low, to.high)


def added(a: Tensor, b: Tensor, before: tuple[Grid, Grid], to: Grid) -> Tensor:
    """The sum of two tensors. Each product is added in one rounding, and the result rounded with its zero point in it,
    as the kernel for AVX2 does.
    """
    ratios = [grid.scale / to.scale for grid in before]
    if torch.is_grad_enabled():
        return rounded(a * ratios[0] + b * ratios[1], to.low, to.high)
    zeros = [float(grid.zero_point) for grid in before]
    fixed = to.zero_point - (ratios[0] * zeros[0] + ratios[1] * zeros[1])
    a, b = (x + zero if zero else x for x, zero in zip((a, b), zeros, strict=True))
    sums = torch.add(fixed, b, alpha=float(ratios[1]))
    return _with_zero_in_it(torch.add(sums, a, alpha=float(ratios[0]), out=sums), to)


def multiplied(a: Tensor, b: Tensor, before: tuple[Grid, Grid], to: Grid) -> Tensor:
    """The product of two tensors, broadcast."""
    ratio = before[0].scale * before[1].scale / to.scale
    if torch.is_grad_enabled():
        return rounded(a * b * ratio, to.low, to.high)
    return rounded_with_zero((a * b).mul_(ratio), to)


def rounded_with_zero(x: Tensor, to: Grid) -> Tensor:
    """Numbers in steps of a grid, rounded with its zero point in them, so that a half goes where the sum is even; ``x``
    is used up.

    >>> with torch.no_grad():
    ...     rounded_with_zero(torch.tensor([2.5, 3.5]), Grid.of(torch.tensor(1.0), 1, signed=False)).tolist()
    [3.0, 3.0]
    """
    return rounded(x, to.low, to.high) if torch.is_grad_enabled() else _with_zero_in_it(x.add_(to.zero_point), to)


def function_of(name: str) -> Callable[[Tensor], Tensor]:
    """A function of one number in float32.

    Raises:
        InputError: it is not known.

    >>> function_of("relu6")(torch.tensor([-1.0, 9.0])).tolist()
    [0.0, 6.0]
    """
    if name not in _FUNCTIONS:
        raise InputError(f"no int8 implementation of the function {name!r} (valid: {', '.join(_FUNCTIONS)})")
    return _FUNCTIONS[name]


def _times(x: Tensor, factor: Tensor) -> Tensor:
    return x * factor if torch.is_grad_enabled() else x.mul_(factor)


def _with_zero_in_it(raw: Tensor, to: Grid) -> Tensor:
    zero = to.zero_point
    raw.round_().clamp_(to.low + zero, to.high + zero)
    return raw.sub_(zero) if zero else raw


def _hard_sigmoid(x: Tensor) -> Tensor:
    return (x * _SIXTH).add_(0.5).clamp_(0, 1)


def _gated(x: Tensor, gate: Tensor) -> Tensor:
    return x * gate if torch.is_grad_enabled() else gate.mul_(x)


_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": lambda x: _gated(x, _hard_sigmoid(x)),
    "silu": lambda x: _gated(x, torch.sigmoid(x)),
    "gelu": F.gelu,
}
