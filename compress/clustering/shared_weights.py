"""Parametrizations that keep weights shared while a module trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.clustering.kmeans_1d import nearest, shared_values
from compress.networks.weight_layers import WeightLayer
from hw_profiles.network.quantization import LARGEST_WEIGHT


class Shared(nn.Module):
    """A parametrization: weight = value of its cluster; zeros are a cluster of their own, always zero.

    The gradient of a value is the sum over its cluster (Han et al., 1510.00149). What an optimizer sees is the value
    times the root of the cluster's size, so a step moves the value by the mean of what it would move the weights: the
    learning rate of an ordinary training fits.

    With ``steps``, a scale for each output channel, values are the integers -127..127 of these scales, rounded with a
    gradient that goes straight through.
    """

    labels: Tensor
    roots: Tensor
    steps: Tensor | None

    def __init__(self, labels: Tensor, clusters: int, steps: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("labels", labels)
        self.register_buffer("roots", torch.bincount(labels.flatten(), minlength=clusters + 1)[1:].clamp_min(1).sqrt())
        self.register_buffer("steps", steps)
        self.start = torch.empty(0)

    def forward(self, scaled: Tensor) -> Tensor:
        """(clusters,) scaled values -> the weight."""
        values = scaled / self.roots
        if self.steps is not None:
            values = values + (values.round().clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT) - values).detach()
        weight: Tensor = _Lookup.apply(values, self.labels)
        return weight if self.steps is None else weight * self.steps

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The scaled values that it starts from."""
        return self.start * self.roots


class _Lookup(torch.autograd.Function):
    """Values by label, 0 for label 0; torch's own indexing takes many times as long to add up its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(labels)
        ctx.clusters = len(values)
        table = torch.cat([values.new_zeros(1), values])
        return table[labels]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (labels,) = ctx.saved_tensors
        sums = torch.bincount(labels.flatten(), gradients[0].flatten(), ctx.clusters + 1)
        return sums[1:].to(gradients[0].dtype), None


def apply_weight_sharing(
    layer: WeightLayer, clusters: int, start: str, seed: int, steps: NDArray[np.float32] | None = None
) -> Shared:
    """Give the weights of a layer that are not zero ``clusters`` values, by k-means from ``start``; with ``steps``
    integers."""
    weight = layer.weight.detach().numpy()
    scale = None if steps is None else np.broadcast_to(steps, weight.shape[:1]).reshape(-1, *[1] * (weight.ndim - 1))
    numbers = weight if scale is None else np.rint(weight / scale)
    nonzero = numbers != 0
    values = shared_values(numbers[nonzero], clusters, start=start, seed=seed)
    if scale is not None:
        values = np.unique(np.rint(values))
        values = values[values != 0]
    labels = np.zeros(weight.shape, np.int64)
    labels[nonzero] = 1 + nearest(numbers[nonzero], values)
    shared = Shared(
        torch.from_numpy(labels), len(values), None if scale is None else torch.from_numpy(scale.astype(np.float32))
    )
    shared.start = torch.from_numpy(values.astype(np.float32))
    parametrize.register_parametrization(layer, "weight", shared)
    return shared


def remove_weight_sharing(layers: Mapping[str, WeightLayer]) -> None:
    """Leave the shared values in the weights and the layers as they were."""
    for layer in layers.values():
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
