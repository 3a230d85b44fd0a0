"""Depthwise separable convolution."""

from __future__ import annotations

from torch import Tensor, nn

from blocks.attention import build_squeeze_excite
from blocks.conv import ConvNormAct
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
        self.depthwise = ConvNormAct(
            spec.in_channels,
            spec.in_channels,
            kernel_size=spec.kernel_size,
            stride=spec.stride,
            groups=spec.in_channels,
            activation=spec.activation,
            padding=spec.padding,
            norm_eps=spec.norm_eps,
        )
        self.se = build_squeeze_excite(spec.in_channels, spec.se_channels, spec.se_activation, spec.gate)
        self.project = ConvNormAct(
            spec.in_channels,
            spec.out_channels,
            kernel_size=1,
            activation=spec.output_activation,
            norm_eps=spec.norm_eps,
        )
        self.identity = spec.shortcut == "identity"

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y: Tensor = self.project(self.se(self.depthwise(x)))
        return x + y if self.identity else y
