"""Inverted residuals: with a depthwise convolution, and fused."""

from __future__ import annotations

from torch import Tensor, nn

from blocks.attention import build_squeeze_excite
from blocks.conv import pointwise_conv, window_conv
from blocks.spec import BlockSpec


class InvertedResidual(nn.Module):
    """The block ``inverted_residual``: expand 1×1, depthwise k×k, squeeze-excite, project 1×1 (1801.04381, 1905.02244).

    >>> import torch
    >>> spec = BlockSpec(kind="inverted_residual", in_channels=8, out_channels=8, mid_channels=32, se_channels=4,
    ...                  shortcut="identity")
    >>> InvertedResidual(spec)(torch.zeros(1, 8, 16, 16)).shape
    torch.Size([1, 8, 16, 16])
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        mid = spec.mid_channels
        self.expand = pointwise_conv(spec, spec.in_channels, mid, spec.activation)
        self.depthwise = window_conv(spec, mid, mid, groups=mid)
        self.se = build_squeeze_excite(mid, spec.se_channels, spec.se_activation, spec.gate)
        self.project = pointwise_conv(spec, mid, spec.out_channels, spec.output_activation)
        self.identity = spec.shortcut == "identity"

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y: Tensor = self.project(self.se(self.depthwise(self.expand(x))))
        return x + y if self.identity else y


class FusedInvertedResidual(nn.Module):
    """The block ``fused_inverted_residual``: expand k×k, squeeze-excite, project 1×1 (2104.00298).

    >>> import torch
    >>> spec = BlockSpec(kind="fused_inverted_residual", in_channels=8, out_channels=16, mid_channels=32, stride=2)
    >>> FusedInvertedResidual(spec)(torch.zeros(1, 8, 16, 16)).shape
    torch.Size([1, 16, 8, 8])
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        mid = spec.mid_channels
        self.expand = window_conv(spec, spec.in_channels, mid)
        self.se = build_squeeze_excite(mid, spec.se_channels, spec.se_activation, spec.gate)
        self.project = pointwise_conv(spec, mid, spec.out_channels, spec.output_activation)
        self.identity = spec.shortcut == "identity"

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y: Tensor = self.project(self.se(self.expand(x)))
        return x + y if self.identity else y
