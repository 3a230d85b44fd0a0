"""Sensitivity of each layer to zeros, and amounts per layer that cost each the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from compress.networks.weight_layers import WeightLayer
from compress.sparsity.masks import keep_of_each

AMOUNTS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
_MOST = AMOUNTS[-1]


def layer_losses(
    model: nn.Module, layers: Mapping[str, WeightLayer], loss_of: Callable[[nn.Module], float]
) -> dict[str, list[float]]:
    """The loss with the weakest weights of one layer at zero, for each layer and each of ``AMOUNTS``
    (Han et al., 1506.02626)."""
    whole = loss_of(model)
    return {name: [whole, *_losses(model, layer, loss_of)] for name, layer in layers.items()}


def _losses(model: nn.Module, layer: WeightLayer, loss_of: Callable[[nn.Module], float]) -> Iterator[float]:
    score = layer.weight.detach().abs()
    for amount in AMOUNTS[1:]:
        with _only(layer, keep_of_each({"": score}, {"": amount})[""]):
            yield loss_of(model)


@contextmanager
def _only(layer: WeightLayer, kept: Tensor) -> Iterator[None]:
    before = layer.weight.detach().clone()
    try:
        with torch.no_grad():
            layer.weight.mul_(kept)
        yield
    finally:
        with torch.no_grad():
            layer.weight.copy_(before)


def equal_amounts(losses: Mapping[str, Sequence[float]], sizes: Mapping[str, int], amount: float) -> dict[str, float]:
    """The amount of each layer such that all lose as much and ``amount`` of all weights is gone; none above 99 %
    unless all must be. A layer's losses are read at ``AMOUNTS``, with straight lines between them.

    >>> losses = {"strong": [0.0] * 12 + [0.1], "weak": [0.1 * i for i in range(13)]}
    >>> {name: round(a, 2) for name, a in equal_amounts(losses, {"strong": 100, "weak": 100}, 0.6).items()}
    {'strong': 0.99, 'weak': 0.21}
    """
    if amount >= _MOST:
        return dict.fromkeys(losses, amount)
    total = sum(sizes.values())
    # A sample of images lets a loss fall where weights leave; what counts is the most that was lost up to there.
    rising = {name: np.maximum.accumulate(values).tolist() for name, values in losses.items()}

    def amounts(allowed: float) -> dict[str, float]:
        return {name: _reached(values, allowed) for name, values in rising.items()}

    low = min(float(values[0]) for values in rising.values()) - 1.0  # where no amount is allowed
    high = max(float(values[-1]) for values in rising.values())
    for _ in range(60):
        middle = (low + high) / 2
        reached = sum(amounts(middle)[name] * sizes[name] for name in sizes) / total
        low, high = (middle, high) if reached < amount else (low, middle)
    below, above = amounts(low), amounts(high)
    return _between(below, above, sizes, amount * total)


def _reached(losses: Sequence[float], allowed: float) -> float:
    """The largest amount whose loss is allowed."""
    last = int(np.searchsorted(losses, allowed, side="right")) - 1
    if last < 0:
        return 0.0
    if last == len(AMOUNTS) - 1:
        return _MOST
    rise = (allowed - losses[last]) / (losses[last + 1] - losses[last])
    return AMOUNTS[last] + float(rise) * (AMOUNTS[last + 1] - AMOUNTS[last])


def _between(
    below: Mapping[str, float], above: Mapping[str, float], sizes: Mapping[str, int], wanted: float
) -> dict[str, float]:
    """Where a loss stands still the amount jumps: the point on the way at which the sum is as wanted."""
    least, most = (sum(ends[name] * sizes[name] for name in sizes) for ends in (below, above))
    part = (wanted - least) / (most - least) if most > least else 1.0
    return {name: below[name] + part * (above[name] - below[name]) for name in sizes}
