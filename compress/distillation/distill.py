"""The stage Distill: a network is trained with the outputs of a teacher, of several, or of its own earlier self."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from compress.argument_checks import is_number, is_within
from compress.distillation.ensemble import wanted_logits
from compress.distillation.feature_distillation import FEATURE_METHODS, FeatureDistillation
from compress.distillation.losses import decoupled_divergences, soft_target_divergence
from compress.networks.artifact import Artifact, check_trainable
from compress.stage_interface import Context
from compress.training.loop import Loss, Recipe, train
from compress.training.teachers import ModuleTeacher, Teacher
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import check_one_of

METHODS = ("soft_targets", "decoupled", *FEATURE_METHODS, "self")


# divergence(logits, the teacher's logits, labels)
Divergence = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Distill:
    """Train further with the outputs of a teacher and the labels. ``weight`` is the teacher's share of the loss,
    ``temperature`` divides both logits.

    - ``"soft_targets"``: the softened outputs of the teacher (Hinton et al., 1503.02531).
    - ``"decoupled"``: the same in two parts, ``target_weight`` × the probability of the label and ``others_weight`` ×
      the distribution over the other classes (Zhao et al., 2203.08679).
    - ``"hints"``: soft targets, and ``feature_weight`` × the distance of a learned convolution of a feature map from
      that of the teacher (FitNets, Romero et al., 1412.6550); in one training, because the network is already trained.
    - ``"attention"``: soft targets, and ``feature_weight`` × the distance of the attention maps of every resolution
      (Zagoruyko and Komodakis, 1612.03928).
    - ``"self"``: re-initialize the network and train it with the original as teacher (born-again networks, Furlanello
      et al., 1805.04770).

    ``layers`` and ``teacher_layers`` are the modules whose feature maps are compared, in pairs; by default the deepest
    ones of each resolution, the last of both networks together, and for hints the middle pair.

    Raises:
        InputError: when called: no teacher, one whose features cannot be read, an artifact that has been quantized or
            whose weights have formats of their own, which training would undo.
    """

    name: ClassVar[str] = "distill"
    lossy: ClassVar[bool] = False

    recipe: Recipe = Recipe(epochs=15, learning_rate=0.05)
    temperature: float = 4.0
    weight: float = 0.7
    method: str = "soft_targets"
    target_weight: float = 1.0
    others_weight: float = 2.0
    feature_weight: float | None = None
    layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_teaching("Distill", self.temperature, self.weight)
        check_one_of("Distill.method", self.method, METHODS)
        weights = (self.target_weight, self.others_weight, 0.0 if self.feature_weight is None else self.feature_weight)
        if not all(is_within(weight, 0) for weight in weights):
            raise InputError(f"Distill: the weights of parts of the loss must be at least 0, got {weights}")
        if len(self.layers) != len(self.teacher_layers):
            raise InputError(
                "Distill.layers and teacher_layers must be pairs, "
                f"got {len(self.layers)} and {len(self.teacher_layers)} names"
            )

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The same architecture with trained weights."""
        check_trainable("Distill", artifact)
        model = artifact.model()
        teacher = context.teacher
        if self.method == "self":
            teacher, model = (
                ModuleTeacher(model, artifact.preprocessing),
                artifact.network.begun_anew(model, context.seed),
            )
        if teacher is None:
            raise InputError("Distill needs a teacher; the context has none")
        loss = divergence_loss(teacher, self._divergence, self.temperature, self.weight)
        if self.method in FEATURE_METHODS:
            feature_distillation = FeatureDistillation.of(
                self, model, teacher, artifact.preprocessing.input_shape, context.seed
            )
            training = feature_distillation.train(loss, context)
        else:
            training = train(
                model,
                context.data,
                self.recipe,
                loss=loss,
                seed=context.seed,
                checkpoint=context.checkpoint,
                report=context.report,
            )
        return replace(artifact.with_model(model), metrics={"training": asdict(training)})

    def _divergence(self, logits: Tensor, wanted: Tensor, labels: Tensor) -> Tensor:
        if self.method == "decoupled":
            target, others = decoupled_divergences(logits, wanted, labels, self.temperature)
            return self.target_weight * target + self.others_weight * others
        return soft_target_divergence(logits, wanted, self.temperature)


def soft_target_loss(teacher: Teacher, temperature: float, weight: float) -> Loss:
    """``weight`` × T² × the divergence from the teacher, the rest cross-entropy."""

    def divergence(logits: Tensor, wanted: Tensor, labels: Tensor) -> Tensor:
        return soft_target_divergence(logits, wanted, temperature)

    return divergence_loss(teacher, divergence, temperature, weight)


def divergence_loss(teacher: Teacher, divergence: Divergence, temperature: float, weight: float) -> Loss:
    """``weight`` × a divergence from the teacher, the rest cross-entropy."""

    def loss(logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
        distilled = divergence(logits, wanted_logits(teacher, pixels, temperature), labels)
        return weight * distilled + (1 - weight) * F.cross_entropy(logits, labels)

    return loss


def check_teaching(stage: str, temperature: float, weight: float) -> None:
    """Raise an InputError unless distillation can use these."""
    if not is_number(temperature, 0) or not is_within(weight, 0, 1):
        raise InputError(
            f"{stage}: temperature must be above 0 and weight between 0 and 1, got {temperature!r} and {weight!r}"
        )
