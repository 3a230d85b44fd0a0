"""Weights of one bit: a sign, and a scale for each output channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from compress.networks.artifact import Artifact
from compress.networks.weight_layers import WeightLayer
from compress.quantization.weight_only.ste_training import train_straight_through
from compress.stage_interface import Context
from compress.training.loop import Recipe
from compress.weight_codecs.codecs import BINARY
from compress.weight_codecs.onnx_storage import store, weights_of
from hw_profiles.onnx_io.rewrites.normal_form import normal_form
from hw_profiles.onnx_io.untrusted_file import load_model

FEWEST = 32
"""Weights of an output channel below which a scale for each is as large as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Binarize:
    """Train on with weights of one bit: in each step a weight is its sign times the mean magnitude of its output
    channel (XNOR-Net, 1603.05279), and the gradient goes straight through; led by what the network was.

    The first and the last layer stay as they are, as in the paper, and layers that have fewer than 32 weights for each
    output channel, of which the scale alone is as large. Activations stay float32.

    A binary weight takes a 32nd of its bytes in the file. Where it runs the weights are made float32 again when it is
    loaded, so that neither memory nor latency changes.

    >>> Binarize().name
    'binary'
    """

    name: ClassVar[str] = "binary"
    lossy: ClassVar[bool] = True

    recipe: Recipe = Recipe(epochs=15, learning_rate=0.05, weight_decay=0.0)

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The network with binary weights; an InputError where it is in integers, or has no layer to make binary."""
        return train_straight_through(
            artifact, context, recipe=self.recipe, codec=BINARY, rounding=lambda weight: _signs, chosen=inner_layers
        )


def store_binary(source: Path | str | bytes) -> bytes:
    """Store the weights of any ONNX file in one bit, except those that :class:`Binarize` excludes. Without binary-aware
    training, accuracy is usually lost.

    Raises:
        InputError: not an ONNX file, or one without such weights.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> data = write_onnx(preset("resnet8").workload())
    >>> round(len(store_binary(data)) / len(data), 2)
    0.08
    """
    names = [weight.name for weight in weights_of(normal_form(load_model(source)).graph)]
    ends = {*names[:1], *names[-1:]}
    return store(source, BINARY, lambda weight: weight.name not in ends and weight.rows.shape[1] >= FEWEST)


def inner_layers(layers: Mapping[str, WeightLayer]) -> list[str]:
    """The layers that :class:`Binarize` makes binary.

    >>> from torch import nn
    >>> from compress.networks.weight_layers import weighted_layers
    >>> layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3), nn.Linear(8, 2)]
    >>> inner_layers(weighted_layers(nn.Sequential(*layers)))
    ['2']
    """
    return [name for name in list(layers)[1:-1] if layers[name].weight[0].numel() >= FEWEST]


def _signs(weight: Tensor) -> Tensor:
    rows = weight.flatten(1)
    scales = rows.abs().mean(1, keepdim=True)
    return torch.where(rows >= 0, scales, -scales).reshape(weight.shape)
