"""Finds the module class of each kind of block."""

from __future__ import annotations

from torch import nn

from blocks.conv import Conv, PooledConv, ResidualConv
from blocks.custom import CUSTOM_BLOCKS, BlockClass, unknown_kind
from blocks.mbconv import FusedInvertedResidual, InvertedResidual
from blocks.separable import DepthwiseSeparable
from blocks.spec import BlockSpec

BLOCKS: dict[str, BlockClass] = {
    "conv": Conv,
    "residual": ResidualConv,
    "separable": DepthwiseSeparable,
    "inverted_residual": InvertedResidual,
    "fused_inverted_residual": FusedInvertedResidual,
    "pooled_conv": PooledConv,
}


def build_block(spec: BlockSpec) -> nn.Module:
    """The module of a spec, of our kinds or a user's own.

    Raises:
        ValueError: no block is called ``spec.kind``.

    >>> import torch
    >>> block = build_block(BlockSpec(kind="conv", in_channels=3, out_channels=8))
    >>> block(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 8, 8, 8])
    """
    classes = BLOCKS | CUSTOM_BLOCKS
    if spec.kind not in classes:
        raise ValueError(unknown_kind(spec.kind, classes))
    return classes[spec.kind](spec)
