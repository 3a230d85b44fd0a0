"""Activation functions by the names that a BlockSpec uses."""

from __future__ import annotations

from torch import nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
}


def build_activation(name: str) -> nn.Module:
    """The module of an activation; ``"none"`` is the identity.

    >>> build_activation("relu6")
    ReLU6()
    """
    return nn.Identity() if name == "none" else _ACTIVATIONS[name]()
