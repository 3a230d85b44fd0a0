"""Weights as 4-bit integers in groups, each with a scale."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from compress.networks.artifact import Artifact
from compress.networks.network_graph import network_graph, with_weights
from compress.networks.store_weights import fewer_bits, require_float, wider_than, with_stored_weights
from compress.quantization.int8.bias_correction import biases_after_rounding
from compress.quantization.weight_only.ste_training import train_straight_through
from compress.stage_interface import Context
from compress.training.loop import Recipe
from compress.weight_codecs.codecs import GROUP, LARGEST, Int4Codec, check_group, group_of, quantized_groups
from compress.weight_codecs.onnx_storage import store
from hw_profiles.errors import InputError

log = logging.getLogger("fitnas")


@dataclass(frozen=True, kw_only=True, slots=True)
class Int4:
    """Store the weights as 4-bit integers with a scale for each ``group`` of neighbors along the input axis.

    Without a ``recipe`` each scale is the one of the least squared error, and biases undo what that does to the mean of
    each channel on training images, where there are any. With one the network trains on while it is rounded so in each
    step, the gradient going straight through (1308.3432), led by what it was; weights that are zero stay zero.

    The file shrinks to about an eighth. Where it runs the weights are made float32 again when it is loaded, so that
    neither memory nor latency changes.

    >>> Int4(group=16).name
    'int4'
    """

    name: ClassVar[str] = "int4"
    lossy: ClassVar[bool] = True

    group: int = GROUP
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        check_group("Int4.group", self.group)

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The network with weights on the grid; an InputError where it is in integers already."""
        codec = Int4Codec(self.group)
        if self.recipe is None:
            if len(context.data.train):
                artifact = self._corrected(artifact, context)
            return with_stored_weights(artifact, codec, wider_than(artifact, 4))
        return train_straight_through(
            artifact, context, recipe=self.recipe, codec=codec, rounding=lambda weight: _Grid(weight, self.group)
        )

    def _corrected(self, artifact: Artifact, context: Context) -> Artifact:
        """With the biases that weights of 4 bits need."""
        require_float(artifact)
        try:
            exact = network_graph(artifact, artifact.preprocessing.tensor(context.data.train.images[:1]))
        except InputError as error:  # such as control flow: its weights are stored all the same
            log.warning("4-bit weights without corrected biases: %s", error)
            return artifact
        rounded, _ = fewer_bits(exact, Int4Codec(self.group), wider_than(artifact, 4), {})
        biases = biases_after_rounding(rounded, None, exact, artifact.preprocessing, context)
        return with_weights(artifact, exact.with_weights({**exact.weights, **biases}))


class _Grid:
    """What a training rounds to. Which share of a group's largest magnitude is clipped is chosen once, at its start."""

    def __init__(self, weight: Tensor, group: int) -> None:
        rows = weight.detach().flatten(1).numpy()
        self.group = group_of(rows.shape[1], group)
        groups = rows.reshape(len(rows), -1, self.group)
        _, scales = quantized_groups(groups)
        largest = np.abs(groups).max(axis=2, keepdims=True)
        self.share = torch.from_numpy(np.divide(LARGEST * scales, largest, out=np.ones_like(scales), where=largest > 0))
        self.zero = weight.detach() == 0

    def __call__(self, weight: Tensor) -> Tensor:
        groups = weight.reshape(len(weight), -1, self.group)
        scales = (groups.abs().amax(2, keepdim=True) * self.share / LARGEST).bfloat16().float()
        scales = torch.where(scales > 0, scales, 1.0)
        rounded = ((groups / scales).round().clamp(-LARGEST, LARGEST) * scales).reshape(weight.shape)
        return rounded.masked_fill(self.zero, 0.0)


def store_int4(source: Path | str | bytes, group: int = GROUP) -> bytes:
    """Any ONNX file with the weights of its convolutions and linear layers as 4-bit integers.

    Raises:
        InputError: not an ONNX file, no such weights, an impossible group, or a file that ONNX cannot bring to opset
            21.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> data = write_onnx(preset("resnet8").workload())
    >>> round(len(store_int4(data)) / len(data), 2)
    0.17
    """
    check_group("group", group)
    return store(source, Int4Codec(group))
