"""Which class builds which kind of block."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from blocks.conv import Conv, ResidualConv
from blocks.mbconv import FusedInvertedResidual, InvertedResidual
from blocks.separable import DepthwiseSeparable
from blocks.spec import BlockSpec


class BlockClass(Protocol):
    """A class that makes a module from a spec: (N, in_channels, H, W) -> (N, out_channels, ~H/stride, ~W/stride)."""

    def __call__(self, spec: BlockSpec, /) -> nn.Module:
        """The module of a spec."""


BLOCKS: dict[str, BlockClass] = {
    "conv": Conv,
    "residual": ResidualConv,
    "separable": DepthwiseSeparable,
    "inverted_residual": InvertedResidual,
    "fused_inverted_residual": FusedInvertedResidual,
}


def build_block(spec: BlockSpec) -> nn.Module:
    """The module of a spec.

    Raises:
        ValueError: no block is called ``spec.kind``.

    >>> import torch
    >>> block = build_block(BlockSpec(kind="conv", in_channels=3, out_channels=8))
    >>> block(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 8, 8, 8])
    """
    if spec.kind not in BLOCKS:
        raise ValueError(f"BlockSpec.kind must be one of {', '.join(BLOCKS)}, got {spec.kind!r}")
    return BLOCKS[spec.kind](spec)
