"""Folds batch normalization into the weights before it, in a module that keeps its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from blocks.conv import ConvNormAct
from compress.networks.observed_pairs import can_be_folded, observed_pairs
from compress.networks.weight_layers import WeightLayer
from hw_profiles.errors import InputError, short_reason
from hw_profiles.network.batch_norm import folded_norm
from hw_profiles.network.workload import InputShape


def fold_normalization(model: nn.Module, input_shape: InputShape = None) -> list[tuple[WeightLayer, _BatchNorm]]:
    """Give each layer that a batch normalization follows the weights of both, in place, and the normalization scale 1,
    mean 0, variance 1 - epsilon, and the bias of both; these pairs. What the module computes in evaluation mode stays.

    So what is done to the weights is done to those that are deployed. A module that ``torch.fx`` cannot follow is run
    once with an input of ``input_shape`` (C, H, W) to see what follows what.

    Raises:
        InputError: which layer a normalization follows depends on the input, or on its shape, which is not given.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    >>> [norm.weight.tolist() for _, norm in fold_normalization(model)]
    [[1.0, 1.0, 1.0, 1.0]]
    """
    pairs = _pairs(model, input_shape)
    for layer, norm in pairs:
        _fold(layer, norm)
    return pairs


@contextmanager
def frozen_batchnorm(pairs: Sequence[tuple[WeightLayer, _BatchNorm]]) -> Iterator[Callable[[], None]]:
    """Keep folded normalizations neutral in a training that calls the given function before each step: only their
    biases learn."""
    frozen = [norm.weight for _, norm in pairs] + [layer.bias for layer, _ in pairs if layer.bias is not None]
    learning = [parameter.requires_grad for parameter in frozen]

    def evaluate() -> None:
        for _, norm in pairs:
            norm.eval()

    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield evaluate
    finally:
        for parameter, learns in zip(frozen, learning, strict=True):
            parameter.requires_grad_(learns)


@torch.no_grad()
def _fold(layer: WeightLayer, norm: _BatchNorm) -> None:
    weight, bias = folded_pair(layer, norm)
    layer.weight.copy_(torch.from_numpy(weight))
    norm.bias.copy_(torch.from_numpy(bias))
    if layer.bias is not None:
        layer.bias.zero_()
    norm.weight.fill_(1.0)
    for statistic, neutral in ((norm.running_mean, 0.0), (norm.running_var, 1.0 - norm.eps)):
        assert statistic is not None
        statistic.fill_(neutral)


def folded_pair(layer: WeightLayer, norm: _BatchNorm) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The weights and biases of a layer and the normalization behind it as one. Of a folded pair they are what the pair
    has.

    >>> layer, norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
    >>> [part.shape for part in folded_pair(layer, norm)]
    [(4, 3, 1, 1), (4,)]
    """
    found = (layer.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    weight, scale, shift, mean, variance = (each.detach().cpu().numpy() for each in found if each is not None)
    bias = 0.0 if layer.bias is None else layer.bias.detach().cpu().numpy()
    return folded_norm(weight, bias, scale=scale, shift=shift, mean=mean, variance=variance, epsilon=norm.eps)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, WeightLayer | _BatchNorm | ConvNormAct) or super().is_leaf_module(m, module_qualified_name)


def _pairs(model: nn.Module, input_shape: InputShape) -> list[tuple[WeightLayer, _BatchNorm]]:
    ours = [(block.conv, block.norm) for block in model.modules() if isinstance(block, ConvNormAct)]
    within = {id(norm) for _, norm in ours}
    others = [norm for norm in model.modules() if isinstance(norm, _BatchNorm) and id(norm) not in within]
    if not others:
        return list(ours)
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever a module does with what stands for its input
        if input_shape is not None:
            return [*ours, *(pair for pair in observed_pairs(model, input_shape) if id(pair[1]) not in within)]
        reason = short_reason(error)
        raise InputError(
            f"{type(model).__name__}: which layer a batch normalization follows must not depend on the input, "
            f"or the shape of the input be known ({reason})"
        ) from None
    return [*ours, *_followed(model, graph)]


def _followed(model: nn.Module, graph: fx.Graph) -> list[tuple[WeightLayer, _BatchNorm]]:
    """Layers called once whose output goes into one normalization, called once, and nowhere else."""
    calls = [node for node in graph.nodes if node.op == "call_module"]
    times: dict[object, int] = {}
    for node in calls:
        times[node.target] = times.get(node.target, 0) + 1
    found = []
    for node in calls:
        norm, source = model.get_submodule(str(node.target)), node.args[0] if node.args else None
        if not isinstance(norm, _BatchNorm) or not can_be_folded(norm):
            continue
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        layer = model.get_submodule(str(source.target))
        if isinstance(layer, WeightLayer) and times[node.target] == times[source.target] == 1:
            found.append((layer, norm))
    return found
