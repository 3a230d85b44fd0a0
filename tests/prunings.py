"""Parts of pruning as tests call them, without a stage around them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from compress import Artifact, Dataset, Prune
from compress.pruning.channel_groups import Kept
from compress.pruning.channel_selection import channels_saved, choose_channels, so_many
from compress.pruning.importance import Batch, Scores, taylor_batches
from compress.pruning.prunable_network import PrunableNetwork, module_network, prunable_network, pruned_artifact
from compress.pruning.prune import Recover
from hw_profiles import Device


def prune_module(
    model: nn.Module,
    shape: tuple[int, int, int],
    device: Device,
    *,
    data: Dataset | None = None,
    recover: Recover | None = None,
    criterion: str = "l2",
    **settings: Any,
) -> PrunableNetwork:
    """A smaller copy of a module; ``recover`` is called after each of the steps."""
    stage = Prune(recipe=None, criterion=criterion, **settings)

    def batches() -> Iterable[Batch]:
        assert data is not None
        return taylor_batches(data.train, data.preprocessing, 0)

    pruned = stage.narrow(module_network(model, shape), device, batches, recover)
    pruned.model.train(model.training)
    return pruned


def remove_channels(artifact: Artifact, kept: Kept) -> Artifact:
    """The artifact with only these channels of its groups; its outputs are those of the original with the activations
    of the others at zero."""
    return pruned_artifact(artifact, prunable_network(artifact).without(kept))


def select_channels(scores: Scores, count: float, multiple: int) -> dict[str, Tensor]:
    """Indices that stay in each group when about ``count`` channels leave, those of the lowest mean scores first."""
    return choose_channels(scores, multiple, channels_saved, so_many(scores, count))
