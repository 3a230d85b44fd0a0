"""Distillation from a teacher's soft targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from compress.artifact import Artifact
from compress.stage import Context
from compress.teacher import Teacher
from compress.train import Loss, Recipe, train


@dataclass(frozen=True, kw_only=True, slots=True)
class Distill:
    """Train on, led by a teacher's softened predictions as much as by the labels (Hinton et al., 1503.02531).

    ``weight`` is the teacher's share of the loss, ``temperature`` divides both logits.
    """

    name: ClassVar[str] = "distill"
    lossy: ClassVar[bool] = False

    recipe: Recipe = Recipe(epochs=15, learning_rate=0.05)
    temperature: float = 4.0
    weight: float = 0.7

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not 0 <= self.weight <= 1:
            raise ValueError(
                f"Distill: temperature must be above 0 and weight in 0..1, got {self.temperature} and {self.weight}"
            )

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The same architecture with trained weights."""
        if context.teacher is None:
            raise ValueError("Distill needs a teacher; the context has none")
        model = artifact.model()
        training = train(
            model,
            context.data,
            self.recipe,
            loss=soft_target_loss(context.teacher, self.temperature, self.weight),
            seed=context.seed,
            checkpoint=context.checkpoint,
            report=context.report,
        )
        return replace(artifact.with_model(model), metrics={"training": asdict(training)})


def soft_target_loss(teacher: Teacher, temperature: float, weight: float) -> Loss:
    """``weight`` × T² × the divergence from the teacher, the rest cross-entropy."""

    def loss(logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
        wanted = F.log_softmax(teacher(pixels).clone() / temperature, dim=1)
        said = F.log_softmax(logits / temperature, dim=1)
        soft = F.kl_div(said, wanted, reduction="batchmean", log_target=True) * temperature**2
        return weight * soft + (1 - weight) * F.cross_entropy(logits, labels)

    return loss
