"""Training for stages that change a module step by step, with the module before the stage as the teacher."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from compress.data.dataset import Dataset
from compress.data.preprocessing import Preprocessing
from compress.distillation.distill import soft_target_loss
from compress.networks.module_copy import copied
from compress.progress import Report, no_report
from compress.training.loop import BeforeStep, Recipe, Training, train
from compress.training.teachers import ModuleTeacher, Teacher, beats_chance, teacher_accuracy

log = logging.getLogger("fitnas")

# learn(model, before_step): trains the model in place and calls before_step with the share that is over.
Learn = Callable[[nn.Module, BeforeStep], object]

_ASKED_IMAGES = 500
_SOFT_TARGETS = {"temperature": 4.0, "weight": 0.7}


@dataclass(kw_only=True)
class GuidedTraining:
    """The one training loop as a :data:`Learn`: called ``parts`` times, it divides the recipe among the calls. Where a
    ``teacher`` is given it leads; each call has a checkpoint of its own."""

    data: Dataset
    recipe: Recipe
    teacher: Teacher | None = None
    seed: int = 0
    parts: int = 1
    checkpoint: Path | None = None
    report: Report = no_report
    done: list[Training] = field(default_factory=list)

    def __call__(self, model: nn.Module, before_step: BeforeStep | None = None) -> None:
        """The next part of the recipe."""
        part, seconds = len(self.done), self.recipe.seconds
        recipe = replace(
            self.recipe,
            epochs=self.recipe.epochs / self.parts,
            seconds=None if seconds is None else seconds / self.parts,
        )
        training = train(
            model,
            self.data,
            recipe,
            loss=None if self.teacher is None else soft_target_loss(self.teacher, **_SOFT_TARGETS),
            seed=self.seed + part,
            checkpoint=self.checkpoint and self.checkpoint.with_suffix(f".{part}.pt"),
            report=lambda share, note: self.report((part + share) / self.parts, note),
            before_step=before_step,
        )
        self.done.append(training)

    def metrics(self) -> dict[str, Any]:
        """What all parts took together."""
        return {"training": asdict(sum(self.done[1:], self.done[0]))} if self.done else {}


def guided_training(
    recipe: Recipe | None, data: Dataset, model: nn.Module, preprocessing: Preprocessing, **how: Any
) -> GuidedTraining | None:
    """Training in which the module learns from what it is now; none without a recipe."""
    if recipe is None:
        return None
    return GuidedTraining(data=data, recipe=recipe, teacher=teacher_or_none(copied(model), preprocessing, data), **how)


def teacher_or_none(model: nn.Module, preprocessing: Preprocessing, data: Dataset) -> Teacher | None:
    """The module as the teacher of its later self; None, with a warning in the log, if it is no better than chance on
    validation images, for example with random weights or a new classifier. Then only the labels are used."""
    teacher, split = ModuleTeacher(model, preprocessing), data.val.spread(_ASKED_IMAGES)
    right = teacher_accuracy(teacher, split)
    if beats_chance(right, split):
        return teacher
    log.warning(
        "trained without a teacher: the network before this step classifies %.1f %% of %d validation images correctly, "
        "which is no better than chance",
        100 * right,
        len(split),
    )
    return None
