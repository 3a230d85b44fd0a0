"""Structured pruning: whole channels leave, and what remains is a smaller Arch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from compress.artifact import Artifact
from compress.channels import ChannelGroups, channel_groups, importance, pruned_arch, pruned_weights
from compress.distill import soft_target_loss
from compress.stage import Context
from compress.teacher import ModuleTeacher
from compress.train import Recipe, train

CRITERIA = ("l2", "bn_scale")
_SOFT_TARGETS = {"temperature": 4.0, "weight": 0.7}


@dataclass(frozen=True, kw_only=True, slots=True)
class Prune:
    """Remove the least important ``amount`` of the channels, ranked over the whole network, then train on.

    Groups keep a multiple of the device's channels (``channel_multiple``), so that no lane of its vector unit is
    idle. The unpruned network teaches the pruned one.
    """

    name: ClassVar[str] = "prune"
    lossy: ClassVar[bool] = True

    amount: float = 0.2
    criterion: str = "l2"
    recipe: Recipe = Recipe(epochs=8, learning_rate=0.03)

    def __post_init__(self) -> None:
        if not 0 < self.amount < 1:
            raise ValueError(f"Prune.amount must be between 0 and 1, got {self.amount}")
        if self.criterion not in CRITERIA:
            raise ValueError(f"Prune.criterion must be one of {', '.join(CRITERIA)}, got {self.criterion!r}")

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """A smaller Arch with the weights that stay, trained on."""
        pruned = remove_channels(artifact, self._kept(artifact, context.device.channel_multiple))
        model = pruned.model()
        teacher = ModuleTeacher(artifact.model(), artifact.preprocessing)
        train(
            model,
            context.data,
            self.recipe,
            loss=soft_target_loss(teacher, **_SOFT_TARGETS),
            seed=context.seed,
            checkpoint=context.checkpoint,
            report=context.report,
        )
        return pruned.with_model(model)

    def _kept(self, artifact: Artifact, multiple: int) -> dict[str, Tensor]:
        workload = artifact.source.workload()
        groups = channel_groups(workload)
        scores = importance(artifact.weights, workload, groups, self.criterion)
        return select_channels(scores, self.amount, multiple)


def select_channels(scores: dict[str, Tensor], amount: float, multiple: int) -> dict[str, Tensor]:
    """Indices that stay in each group when about ``amount`` of all channels, those with the lowest scores, leave.

    The number that stays is rounded to ``multiple``, at least one multiple, at most what was there.

    >>> select_channels({"a": torch.tensor([3.0, 1.0, 2.0, 4.0])}, 0.5, 2)["a"]
    tensor([0, 3])
    """
    ranked = torch.cat(list(scores.values())).sort().values
    threshold = ranked[min(len(ranked) - 1, round(amount * len(ranked)))]
    kept = {}
    for group, score in scores.items():
        wanted = int((score >= threshold).sum())
        count = min(len(score), max(multiple, round(wanted / multiple) * multiple))
        kept[group] = score.topk(count).indices.sort().values
    return kept


def remove_channels(artifact: Artifact, kept: dict[str, Tensor]) -> Artifact:
    """The artifact without the other channels; its outputs are those of the original with their activations at zero."""
    workload = artifact.source.workload()
    groups: ChannelGroups = channel_groups(workload)
    return replace(
        artifact,
        source=pruned_arch(artifact.source, groups, kept),
        weights=pruned_weights(artifact.weights, workload, groups, kept),
    )
