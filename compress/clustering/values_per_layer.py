"""Chooses the number of values of each layer, fewer where the loss is less sensitive."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.clustering.shared_weights import apply_weight_sharing, remove_weight_sharing
from compress.data.preprocessing import Preprocessing
from compress.networks.weight_layers import WeightLayer

DivergenceOf = Callable[[nn.Module], float]
Steps = Mapping[str, NDArray[np.float32]]

FEWEST, MOST = 4, 255
_PROBE = 16  # values with which each layer is tried alone
_ROUNDS = 20


def layer_divergences(
    model: nn.Module, layers: Mapping[str, WeightLayer], start: str, steps: Steps, divergence_of: DivergenceOf
) -> dict[str, float]:
    """How far the network's classes move when the weights of one layer take few values, for each layer."""
    found = {}
    for name, layer in layers.items():
        whole = layer.weight.detach().clone()
        apply_weight_sharing(layer, _PROBE, start, 0, steps.get(name))
        remove_weight_sharing({name: layer})
        found[name] = divergence_of(model)
        with torch.no_grad():
            layer.weight.copy_(whole)
    return found


def values_of_layers(divergences: Mapping[str, float], sizes: Mapping[str, int], mean: int) -> dict[str, int]:
    """The number of values of each layer: ``mean`` of them in the geometric mean over all weights, with the least
    divergence together. That of a layer is taken to fall with the square of its number of values, as errors of rounding
    do.

    >>> values_of_layers({"weak": 4.0, "strong": 0.25}, {"weak": 100, "strong": 100}, 16)
    {'weak': 32, 'strong': 8}
    """
    names = list(sizes)
    size = np.array([sizes[name] for name in names], np.float64)
    slope = np.log2([max(divergences[name], 1e-12) for name in names]) - np.log2(size)
    bits = np.full(len(names), np.log2(mean))
    free = np.ones(len(names), np.bool_)
    for _ in range(_ROUNDS):  # what is cut off at the ends is made up for by the others
        spent = (size * bits)[~free].sum()
        share = (size[free] * slope[free]).sum() / size[free].sum() / 2
        bits[free] = (size.sum() * np.log2(mean) - spent) / size[free].sum() + slope[free] / 2 - share
        cut = free & ((bits < np.log2(FEWEST)) | (bits > np.log2(MOST)))
        bits = np.clip(bits, np.log2(FEWEST), np.log2(MOST))
        free &= ~cut
        if not cut.any() or not free.any():
            break
    return {name: int(value) for name, value in zip(names, np.rint(2**bits), strict=True)}


def divergence_on(model: nn.Module, images: NDArray[np.uint8], preprocessing: Preprocessing) -> DivergenceOf:
    """The mean Kullback-Leibler divergence, in nats, of a module's class probabilities on these images from those that
    ``model`` gives now."""
    batches = [torch.from_numpy(preprocessing.tensor(images[i : i + 50])) for i in range(0, len(images), 50)]

    @torch.inference_mode()
    def log_probabilities(module: nn.Module) -> Tensor:
        return torch.cat([module(batch) for batch in batches]).double().log_softmax(1)

    expected = log_probabilities(model)

    def divergence(module: nn.Module) -> float:
        return float((expected.exp() * (expected - log_probabilities(module))).sum(1).mean())

    return divergence
