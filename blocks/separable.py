"""Depthwise separable convolution."""

from __future__ import annotations

from torch import Tensor, nn

from blocks.attention import build_squeeze_excite
from blocks.conv import pointwise_conv, window_conv
from blocks.spec import BlockSpec


class DepthwiseSeparable(nn.Module):
    """The block ``separable``: depthwise k×k, squeeze-excite, pointwise (1704.04861).

    >>> import torch
    >>> spec = BlockSpec(kind="separable", in_channels=8, out_channels=16, stride=2)
    >>> DepthwiseSeparable(spec)(torch.zeros(1, 8, 32, 32)).shape
    torch.Size([1, 16, 16, 16])
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        channels = spec.in_channels
        self.depthwise = window_conv(spec, channels, channels, groups=channels)
        self.se = build_squeeze_excite(channels, spec.se_channels, spec.se_activation, spec.gate)
        self.project = pointwise_conv(spec, channels, spec.out_channels, spec.output_activation)
        self.identity = spec.shortcut == "identity"

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y: Tensor = self.project(self.se(self.depthwise(x)))
        return x + y if self.identity else y
