"""Pruning of a module of torch, without a stage around it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from compress.data.dataset import Dataset
from compress.pruning.importance import Batch, taylor_batches
from compress.pruning.prunable_network import PrunableNetwork, module_network
from compress.pruning.prune import Prune, Recover
from hw_profiles.devices.device import Device
from hw_profiles.errors import InputError


def prune_module(
    model: nn.Module,
    example_shape: tuple[int, int, int],
    device: Device,
    *,
    data: Dataset | None = None,
    recover: Recover | None = None,
    criterion: str = "l2",
    **settings: Any,
) -> PrunableNetwork:
    """A copy of a module without the channels and attention heads that matter least; nothing is trained but by
    ``recover``, which is called after each of the ``steps``.

    ``settings`` are those of :class:`compress.pruning.prune.Prune` without ``recipe`` and ``blocks``; ``example_shape``
    (C, H, W) is what the module reads. What belongs together is found by torch-pruning's dependency graph (2301.12900),
    see :func:`compress.pruning.module_groups.find_groups`.

    Raises:
        InputError: a limit below what the narrowest module takes, which is named; nothing that may leave, with the
            reason of each layer; a module that cannot be followed or traced; ``"taylor"`` without data.

    >>> from hw_profiles import load_device
    >>> net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 2, 3), nn.Flatten(), nn.Linear(32, 2))
    >>> pruned = prune_module(net, (3, 8, 8), load_device("host"), amount=0.5)
    >>> pruned.model[0].out_channels, len(pruned.kept["2:inputs"])
    (32, 32)
    """
    stage = Prune(recipe=None, criterion=criterion, **settings)

    def batches() -> Iterator[Batch]:
        if data is None:
            raise InputError("prune_module: criterion 'taylor' looks at images: data must be given")
        return taylor_batches(data.train, data.preprocessing, 0)

    pruned = stage.narrow(module_network(model, example_shape), device, batches, recover)
    pruned.model.train(model.training)
    return pruned
