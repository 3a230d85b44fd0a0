"""The activation functions, in one table: what ONNX calls them, where they differ and what they compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Activation:
    """An activation function. ``node`` is the ONNX operation that computes it; ``written_as`` are those that a file
    may have it as for the writer to write the same, none where it writes another operation or cannot write it.
    ``distinguished``: what it makes of its input differs only between these, by less than 0.0005 where it is no exact
    bound. ``compute`` is the function itself, where something here needs its numbers. ``gate`` names the function that
    its input is multiplied by. ``cheap``: it has no exponential."""

    node: str
    written_as: tuple[str, ...] = ()
    distinguished: Range = (-math.inf, math.inf)
    compute: Callable[[Numbers], Numbers] | None = None
    gate: str = ""
    cheap: bool = False


def _relu6(x: Numbers) -> Numbers:
    return np.clip(x, 0, 6)


def _sigmoid(x: Numbers) -> Numbers:
    return np.asarray(1 / (1 + np.exp(-x)), x.dtype)


def _hard_sigmoid(x: Numbers) -> Numbers:
    return np.clip(x / 6 + 0.5, 0, 1)


def _relu(x: Numbers) -> Numbers:
    return np.maximum(x, 0)


ACTIVATIONS: Mapping[str, Activation] = {
    "none": Activation(node="Identity", cheap=True),
    "relu": Activation(
        node="Relu", written_as=("Relu", "Clip", "Max"), distinguished=(0.0, math.inf), compute=_relu, cheap=True
    ),
    "relu6": Activation(node="Clip", written_as=("Clip",), distinguished=(0.0, 6.0), compute=_relu6, cheap=True),
    "clip": Activation(node="Clip", cheap=True),
    "leaky_relu": Activation(node="LeakyRelu", cheap=True),
    "sigmoid": Activation(node="Sigmoid", written_as=("Sigmoid",), distinguished=(-8.0, 8.0), compute=_sigmoid),
    "hard_sigmoid": Activation(
        node="HardSigmoid", written_as=("HardSigmoid",), distinguished=(-3.0, 3.0), compute=_hard_sigmoid
    ),
    "silu": Activation(
        node="QuickGelu", distinguished=(-10.0, math.inf), compute=lambda x: x * _sigmoid(x), gate="sigmoid"
    ),
    "hard_swish": Activation(
        node="HardSwish", written_as=("HardSwish",), distinguished=(-3.0, math.inf),
        compute=lambda x: x * _hard_sigmoid(x), gate="hard_sigmoid",
    ),
    "gelu": Activation(node="Gelu", written_as=("Gelu",), distinguished=(-4.0, math.inf)),
    "tanh": Activation(node="Tanh"),
    "softmax": Activation(node="Softmax"),
    "layer_norm": Activation(node="LayerNormalization"),
}  # fmt: skip


def activation(function: str) -> Activation:
    """What is known of a function; of one that is not in the table no more than that it is called so.

    >>> activation("relu6").distinguished, activation("Softplus").node
    ((0.0, 6.0), 'Softplus')
    """
    return ACTIVATIONS.get(function) or Activation(node=function)
