"""Structured pruning: whole channels leave, and what remains is a smaller Arch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from compress.artifact import Artifact
from compress.channels import channel_groups, pruned_arch, pruned_weights
from compress.distill import soft_target_loss
from compress.importance import CRITERIA, Scores, channel_scores
from compress.stage import Context
from compress.teacher import ModuleTeacher
from compress.train import Recipe, Training, train

_SOFT_TARGETS = {"temperature": 4.0, "weight": 0.7}
_MOST_OF_A_GROUP = 0.75  # what one step may take of a group, so that no layer is cut through


@dataclass(frozen=True, kw_only=True, slots=True)
class Prune:
    """Remove the least important ``amount`` of the channels, ranked over the whole network, then train on.

    With ``steps`` the channels leave in so many equal parts, and the ``recipe`` is divided among them: the network
    recovers after each, and the next ones are chosen on what it became (1611.06440). Groups keep a multiple of the
    device's channels (``channel_multiple``), so that no lane of its vector unit is idle. The unpruned network teaches
    the pruned one. ``criterion``: see :func:`compress.importance.channel_scores`.

    >>> Prune(amount=0.5, steps=2).shares()
    [0.25, 0.3333333333333333]
    """

    name: ClassVar[str] = "prune"
    lossy: ClassVar[bool] = True

    amount: float = 0.2
    criterion: str = "l2"
    steps: int = 1
    recipe: Recipe = Recipe(epochs=8, learning_rate=0.03)

    def __post_init__(self) -> None:
        if not 0 < self.amount < 1:
            raise ValueError(f"Prune.amount must be between 0 and 1, got {self.amount}")
        if self.criterion not in CRITERIA:
            raise ValueError(f"Prune.criterion must be one of {', '.join(CRITERIA)}, got {self.criterion!r}")
        if self.steps < 1:
            raise ValueError(f"Prune.steps must be at least 1, got {self.steps}")

    def shares(self) -> list[float]:
        """What each step takes of the channels that are left, so that every step takes as many."""
        part = self.amount / self.steps
        return [part / (1 - i * part) for i in range(self.steps)]

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """A smaller Arch with the weights that stay, trained on."""
        unpruned = ModuleTeacher(artifact.model(), artifact.preprocessing)
        pruned, trainings = artifact, []
        for i, share in enumerate(self.shares()):
            pruned = self._without(pruned, share, context)
            model = pruned.model()
            trainings.append(self._recover(model, unpruned, context, i))
            pruned = pruned.with_model(model)
        return replace(pruned, metrics={"training": asdict(sum(trainings[1:], trainings[0]))})

    def _without(self, artifact: Artifact, share: float, context: Context) -> Artifact:
        groups = channel_groups(artifact.source.workload())
        scores = channel_scores(artifact, groups, self.criterion, context.data.train, context.seed)
        return remove_channels(artifact, select_channels(scores, share, context.device.channel_multiple))

    def _recover(self, model: torch.nn.Module, teacher: ModuleTeacher, context: Context, step: int) -> Training:
        """Train for a step's part of the recipe; each step has a checkpoint of its own, so that it is found again."""
        seconds = None if self.recipe.seconds is None else self.recipe.seconds / self.steps
        checkpoint = context.checkpoint and context.checkpoint.with_suffix(f".{step}.pt")
        return train(
            model,
            context.data,
            replace(self.recipe, epochs=self.recipe.epochs / self.steps, seconds=seconds),
            loss=soft_target_loss(teacher, **_SOFT_TARGETS),
            seed=context.seed,
            checkpoint=checkpoint,
            report=lambda share, note: context.report((step + share) / self.steps, note),
        )


def select_channels(scores: Scores, amount: float, multiple: int) -> dict[str, Tensor]:
    """Indices that stay in each group when about ``amount`` of all channels, those with the lowest scores, leave.

    The number that stays is rounded to ``multiple``, at least one multiple and a quarter of the group, at most what
    was there.

    >>> select_channels({"a": torch.tensor([3.0, 1.0, 2.0, 4.0])}, 0.5, 2)["a"]
    tensor([0, 3])
    """
    ranked = torch.cat(list(scores.values())).sort().values
    threshold = ranked[min(len(ranked) - 1, round(amount * len(ranked)))]
    kept = {}
    for group, score in scores.items():
        wanted = max(int((score >= threshold).sum()), round((1 - _MOST_OF_A_GROUP) * len(score)))
        count = min(len(score), max(multiple, round(wanted / multiple) * multiple))
        kept[group] = score.topk(count).indices.sort().values
    return kept


def remove_channels(artifact: Artifact, kept: dict[str, Tensor]) -> Artifact:
    """The artifact without the other channels; its outputs are those of the original with their activations at zero."""
    workload = artifact.source.workload()
    groups = channel_groups(workload)
    return replace(
        artifact,
        source=pruned_arch(artifact.source, groups, kept),
        weights=pruned_weights(artifact.weights, workload, groups, kept),
    )
