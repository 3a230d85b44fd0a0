"""Distillation of feature maps: hints and attention transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from compress.distillation.feature_maps import Taps, feature_layers
from compress.distillation.losses import attention_distance, hint_distance, pooled, smaller_size
from compress.stage_interface import Context
from compress.training.loop import Loss, Recipe, Training, train
from compress.training.random_generators import seeded
from compress.training.teachers import ModuleTeacher, Teacher
from hw_profiles.errors import InputError
from hw_profiles.torch_io.trace import in_eval_mode

FEATURE_METHODS = ("hints", "attention")
# Attention's authors give 1000 without soft targets beside it; with them so much drowned the rest (digits, four epochs
# of ResNet-8 from the start: 83 % right, with 10 94 %, with soft targets alone 92 %).
_USUAL_WEIGHTS = {"hints": 1.0, "attention": 10.0}


class FeatureConfig(Protocol):
    """The settings of feature distillation, see :class:`compress.distillation.distill.Distill`."""

    @property
    def method(self) -> str:
        """``"hints"`` or ``"attention"``."""

    @property
    def recipe(self) -> Recipe:
        """How to train."""

    @property
    def feature_weight(self) -> float | None:
        """Of the feature maps in the loss."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Modules of the student."""

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """Modules of the teacher."""


class StudentWithRegressors(nn.Module):
    """A student with the regressors that are trained beside it; its output is the student's."""

    def __init__(self, model: nn.Module, regressors: nn.ModuleList) -> None:
        super().__init__()
        self.model = model
        self.regressors = regressors

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits."""
        logits: Tensor = self.model(x)
        return logits


@dataclass(frozen=True, slots=True)
class FeatureDistillation:
    """A student and a teacher whose feature maps are compared, name by name."""

    config: FeatureConfig
    student: StudentWithRegressors
    teacher: ModuleTeacher
    layers: tuple[str, ...]
    teacher_layers: tuple[str, ...]

    @classmethod
    def of(
        cls, config: FeatureConfig, model: nn.Module, teacher: Teacher, input_shape: tuple[int, int, int], seed: int
    ) -> FeatureDistillation:
        """The same with its layers chosen and, for hints, its regressors drawn by the seed.

        Raises:
            InputError: the teacher is no module, or one of both has no feature maps, or no such layer.
        """
        if not isinstance(teacher, ModuleTeacher):
            raise InputError(
                f"Distill.method {config.method!r} compares feature maps and needs one teacher that is a module, "
                f"got {type(teacher).__name__} (valid for it: soft_targets, decoupled)"
            )
        pairs = tuple(zip(config.layers, config.teacher_layers, strict=True)) or _pairs(
            config.method, model, teacher.model, input_shape
        )
        layers, teacher_layers = (tuple(names) for names in zip(*pairs, strict=True))
        regressors = nn.ModuleList()
        # Of either method: they tell which layer makes no feature maps.
        own = _channels(model, layers, input_shape)
        wanted = _channels(teacher.model, teacher_layers, input_shape)
        if config.method == "hints":
            with seeded(seed):
                regressors.extend(nn.Conv2d(*pair, 1) for pair in zip(own, wanted, strict=True))
        return cls(config, StudentWithRegressors(model, regressors), teacher, layers, teacher_layers)

    def train(self, loss: Loss, context: Context) -> Training:
        """Train the student by a loss of its logits and by the feature maps."""
        weight = self.config.feature_weight
        weight = _USUAL_WEIGHTS[self.config.method] if weight is None else weight
        with Taps(self.student.model, self.layers) as seen, Taps(self.teacher.model, self.teacher_layers) as shown:

            def both(logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
                value = loss(logits, labels, pixels)  # the teacher looks at the images here
                return value + weight * self._distance(seen.features(), [f.clone() for f in shown.features()])

            return train(
                self.student,
                context.data,
                self.config.recipe,
                loss=both,
                seed=context.seed,
                checkpoint=context.checkpoint,
                report=context.report,
            )

    def _distance(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        if self.config.method == "attention":
            values = [attention_distance(one, other) for one, other in zip(student, teacher, strict=True)]
        else:
            values = [hint_loss(*parts) for parts in zip(self.student.regressors, student, teacher, strict=True)]
        return torch.stack(values).sum()


def hint_loss(regressor: nn.Module, guided: Tensor, hint: Tensor) -> Tensor:
    """The distance of what a 1×1 regressor makes of a student's feature map from a teacher's, the larger of both first
    averaged down: FitNets' own regressor shrinks it by a kernel as large as the difference, which at 32 against 16
    pixels would cost more than the student.

    >>> float(hint_loss(nn.Identity(), torch.ones(1, 2, 8, 8), torch.zeros(1, 2, 4, 4)))
    0.5
    """
    size = smaller_size(guided, hint)
    return hint_distance(regressor(pooled(guided, size)), pooled(hint, size))


def _pairs(
    method: str, model: nn.Module, teacher: nn.Module, input_shape: tuple[int, int, int]
) -> tuple[tuple[str, str], ...]:
    """The deepest feature maps of each resolution, counted from the last; for hints the middle one."""
    own, other = ([name for name, _ in feature_layers(m, input_shape).values()] for m in (model, teacher))
    if not own or not other:
        whose = "student" if not own else "teacher"
        raise InputError(f"Distill.method {method!r} needs feature maps (N, C, H, W); the {whose} has none")
    count = min(len(own), len(other))
    pairs = tuple(zip(own[-count:], other[-count:], strict=True))
    return (pairs[count // 2],) if method == "hints" else pairs


def _channels(model: nn.Module, names: Sequence[str], input_shape: tuple[int, int, int]) -> list[int]:
    """Of the feature maps that named modules make."""
    with Taps(model, names) as taps, torch.inference_mode(), in_eval_mode(model):
        model(torch.zeros(1, *input_shape))
        shapes = [tuple(features.shape) for features in taps.features()]
    for name, shape in zip(names, shapes, strict=True):
        if len(shape) != 4:
            raise InputError(f"layer {name!r} must give feature maps (N, C, H, W), got {len(shape)} dimensions")
    return [shape[1] for shape in shapes]
