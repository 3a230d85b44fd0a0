"""Squeeze-and-excitation."""

from __future__ import annotations

from torch import Tensor, nn

from blocks.activations import build_activation


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all channels (1709.01507): (N, C, H, W) -> the same.

    >>> import torch
    >>> SqueezeExcite(8, 2)(torch.ones(1, 8, 4, 4)).shape
    torch.Size([1, 8, 4, 4])
    """

    def __init__(self, channels: int, se_channels: int, *, activation: str = "relu", gate: str = "sigmoid") -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, se_channels, 1)
        self.act = build_activation(activation)
        self.expand = nn.Conv2d(se_channels, channels, 1)
        self.gate = build_activation(gate)

    def forward(self, x: Tensor) -> Tensor:
        """Squeeze, excite, scale."""
        squeezed = nn.functional.adaptive_avg_pool2d(x, 1)
        gated: Tensor = x * self.gate(self.expand(self.act(self.reduce(squeezed))))
        return gated


def build_squeeze_excite(channels: int, se_channels: int, activation: str, gate: str) -> nn.Module:
    """A SqueezeExcite, or the identity where ``se_channels`` is 0.

    >>> import torch
    >>> build_squeeze_excite(8, 0, "relu", "sigmoid")(torch.ones(1)).item()
    1.0
    """
    return SqueezeExcite(channels, se_channels, activation=activation, gate=gate) if se_channels else nn.Identity()
