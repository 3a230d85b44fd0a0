"""Plain, residual and pooled convolutions."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.activations import build_activation
from blocks.spec import BlockSpec, same_padding


class ConvNormAct(nn.Module):
    """Convolution without bias, batch normalization, activation: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride).

    >>> import torch
    >>> ConvNormAct(3, 8, stride=2)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 8, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        activation: str = "relu",
        padding: str = "symmetric",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.same = padding == "same"
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=0 if self.same else kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=norm_eps)
        self.act = build_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the three in order."""
        if self.same:
            x = _pad_same(x, self.conv.kernel_size[0], self.conv.stride[0])
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


def window_conv(spec: BlockSpec, in_channels: int, out_channels: int, *, groups: int = 1) -> ConvNormAct:
    """The convolution of a block that has its window, stride and activation."""
    return ConvNormAct(
        in_channels,
        out_channels,
        kernel_size=spec.kernel_size,
        stride=spec.stride,
        groups=groups,
        activation=spec.activation,
        padding=spec.padding,
        norm_eps=spec.norm_eps,
    )


def pointwise_conv(spec: BlockSpec, in_channels: int, out_channels: int, activation: str) -> ConvNormAct:
    """A 1×1 convolution of a block."""
    return ConvNormAct(in_channels, out_channels, kernel_size=1, activation=activation, norm_eps=spec.norm_eps)


class Conv(ConvNormAct):
    """The block ``conv``: one ConvNormAct, added to its input where the spec has an identity shortcut."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(
            spec.in_channels,
            spec.out_channels,
            kernel_size=spec.kernel_size,
            stride=spec.stride,
            activation=spec.activation,
            padding=spec.padding,
            norm_eps=spec.norm_eps,
        )
        self.identity = spec.shortcut == "identity"

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y = super().forward(x)
        return x + y if self.identity else y


class ResidualConv(nn.Module):
    """The block ``residual``: two k×k convolutions and a shortcut, activated after the sum (1512.03385).

    >>> import torch
    >>> spec = BlockSpec(kind="residual", in_channels=8, out_channels=16, mid_channels=16, stride=2,
    ...                  shortcut="projection")
    >>> ResidualConv(spec)(torch.zeros(1, 8, 32, 32)).shape
    torch.Size([1, 16, 16, 16])
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()

        linear = replace(spec, activation="none")
        self.conv1 = window_conv(spec, spec.in_channels, spec.mid_channels)
        self.conv2 = window_conv(replace(linear, stride=1), spec.mid_channels, spec.out_channels)
        self.identity = spec.shortcut == "identity"
        projected = spec.shortcut == "projection"
        side = replace(linear, kernel_size=1)
        self.project = window_conv(side, spec.in_channels, spec.out_channels) if projected else None
        self.act = build_activation(spec.activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y = self.conv2(self.conv1(x))
        if self.project is not None:
            y = y + self.project(x)
        elif self.identity:
            y = y + x
        activated: Tensor = self.act(y)
        return activated


class PooledConv(nn.Module):
    """The block ``pooled_conv``: global mean, 1×1 convolution with bias, activation; a head only (1905.02244).

    >>> import torch
    >>> spec = BlockSpec(kind="pooled_conv", in_channels=8, out_channels=16, activation="hard_swish")
    >>> PooledConv(spec)(torch.zeros(1, 8, 7, 7)).shape
    torch.Size([1, 16, 1, 1])
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(spec.in_channels, spec.out_channels, 1)
        self.act = build_activation(spec.activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, 1, 1)."""
        y: Tensor = self.act(self.conv(F.adaptive_avg_pool2d(x, 1)))
        return y


def _pad_same(x: Tensor, kernel_size: int, stride: int) -> Tensor:
    top, bottom = same_padding(int(x.shape[2]), kernel_size, stride)
    left, right = same_padding(int(x.shape[3]), kernel_size, stride)
    return F.pad(x, (left, right, top, bottom))
