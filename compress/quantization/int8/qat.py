"""The stage QuantizeAware: quantization-aware training in the integers that will run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from torch import nn

from compress.data.preprocessing import Preprocessing
from compress.distillation.distill import check_teaching, soft_target_loss
from compress.networks.artifact import Artifact
from compress.networks.folded_weights import with_folded_weights
from compress.networks.onnx_export import folded_weights
from compress.quantization.int8.learned_integers import START, LearnedIntegers
from compress.stage_interface import Context
from compress.training.loop import Recipe, Training, train
from compress.training.teachers import ModuleTeacher
from compress.weight_codecs.sparse_formats import zeros_alone
from hw_profiles.errors import InputError
from search_spaces.arch import Arch


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizeAware:
    """Train the weights and all scales in 8-bit integers, led by the float network (LSQ, 1902.08153).

    It starts from the artifact's scales, or where it has none from the extremes of calibration images. Batch
    normalisation is folded. Zeros of a stage before stay zeros. Weights have a scale for each output channel,
    activations one for each tensor; a scale's gradient is divided by the square root of the numbers that it serves
    times the largest integer. ``weight`` and ``temperature`` are those of :class:`compress.Distill`.
    """

    name: ClassVar[str] = "qat"
    lossy: ClassVar[bool] = True

    recipe: Recipe = Recipe(epochs=5, learning_rate=0.002, weight_decay=1e-4)
    temperature: float = 4.0
    weight: float = 0.7

    def __post_init__(self) -> None:
        check_teaching("QuantizeAware", self.temperature, self.weight)
        if self.recipe.bfloat16 is not False:
            raise InputError(
                f"QuantizeAware: recipe.bfloat16 must be False, got {self.recipe.bfloat16}: sums are exact"
            )

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The same network with weights on the grid of their scales; of another source than an Arch the file is in
        these integers."""
        if not isinstance(artifact.source, Arch):
            from compress.quantization.int8.qat_module import trained_file

            return trained_file(artifact, self, context)
        start = artifact if artifact.quantization is not None else START(artifact, context)
        assert start.quantization is not None
        workload, original = start.arch.workload(), start.model()
        zeros = zeros_alone(start.weight_formats)
        model = LearnedIntegers(workload, folded_weights(original, workload), start.quantization, sparse=zeros)
        training = self.train(model, original, start.preprocessing, context)
        learnt = with_folded_weights(start, model.weights_on_the_grid())
        metrics = {"training": asdict(training)}
        # Shared values that a stage before made are no longer there.
        return replace(learnt, quantization=model.quantization(), weight_formats=zeros, metrics=metrics)

    def train(
        self, model: LearnedIntegers, original: nn.Module, preprocessing: Preprocessing, context: Context
    ) -> Training:
        """Train the integers, led by the float network."""
        return train(
            model,
            context.data,
            self.recipe,
            loss=soft_target_loss(ModuleTeacher(original, preprocessing), self.temperature, self.weight),
            seed=context.seed,
            checkpoint=context.checkpoint,
            report=context.report,
        )
