"""Structured pruning: whole channels leave, and what remains is a smaller Arch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from compress.artifact import Artifact
from compress.channels import channel_groups, prunable_groups, pruned_arch, pruned_weights
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
    recovers after each, and the next ones are chosen on what it became (1611.06440). Channels leave in multiples of the
    device's (``channel_multiple``), so that no lane of its vector unit is idle. The unpruned network teaches the pruned
    one. ``criterion``: see :func:`compress.importance.channel_scores`.

    >>> Prune(amount=0.5, criterion="taylor").name
    'prune'
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

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """A smaller Arch with the weights that stay, trained on; the same artifact where no multiple can leave."""
        unpruned = ModuleTeacher(artifact.model(), artifact.preprocessing)
        channels = _channels(artifact)
        pruned, trainings = artifact, []
        for i in range(self.steps):
            wanted = channels * (1 - self.amount * (i + 1) / self.steps)
            smaller = self._without(pruned, _channels(pruned) - wanted, context)
            if smaller.source != pruned.source:
                model = smaller.model()
                trainings.append(self._recover(model, unpruned, context, i))
                pruned = smaller.with_model(model)
        took = {"training": asdict(sum(trainings[1:], trainings[0]))} if trainings else {}
        return replace(pruned, metrics=took)

    def _without(self, artifact: Artifact, count: float, context: Context) -> Artifact:
        groups = prunable_groups(artifact.source)
        scores = channel_scores(artifact, groups, self.criterion, context.data.train, context.seed)
        return remove_channels(artifact, select_channels(scores, count, context.device.channel_multiple))

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


def select_channels(scores: Scores, count: float, multiple: int) -> dict[str, Tensor]:
    """Indices that stay in each group when about ``count`` channels leave.

    The weakest channels of a group leave together, down to the next multiple of ``multiple``; where their mean score
    is the lowest of all groups, they leave first. At least one multiple and a quarter of each group stay.

    >>> select_channels({"a": torch.tensor([3.0, 1.0, 2.0, 4.0])}, 2, 2)["a"]
    tensor([0, 3])
    """
    ranked = {group: score.sort().values for group, score in scores.items()}
    width = {group: len(score) for group, score in scores.items()}

    def part(group: str) -> int:
        """How many channels of a group leave next."""
        return width[group] % multiple or multiple

    def cost(group: str) -> float:
        gone = len(ranked[group]) - width[group]
        return float(ranked[group][gone : gone + part(group)].mean())

    while True:
        open_groups = [g for g in width if width[g] - part(g) >= max(multiple, (1 - _MOST_OF_A_GROUP) * len(ranked[g]))]
        if not open_groups:
            break
        weakest = min(open_groups, key=cost)
        if part(weakest) / 2 > count:
            break
        count -= part(weakest)
        width[weakest] -= part(weakest)
    return {group: score.topk(width[group]).indices.sort().values for group, score in scores.items()}


def _channels(artifact: Artifact) -> int:
    groups = prunable_groups(artifact.source)
    return sum(groups.width[group] for group in groups.prunable())


def remove_channels(artifact: Artifact, kept: dict[str, Tensor]) -> Artifact:
    """The artifact without the other channels; its outputs are those of the original with their activations at zero."""
    workload = artifact.source.workload()
    groups = channel_groups(workload)
    return replace(
        artifact,
        source=pruned_arch(artifact.source, groups, kept),
        weights=pruned_weights(artifact.weights, workload, groups, kept),
    )
