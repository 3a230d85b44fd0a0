"""The stage QuantizeAware: quantization-aware training in the integers that will run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.data.preprocessing import Preprocessing
from compress.distillation.distill import check_teaching, soft_target_loss
from compress.networks.artifact import Artifact
from compress.networks.network_graph import network_graph, with_integers
from compress.networks.torch_export import distance
from compress.quantization.int8.learned_integers import START, LearnedIntegers
from compress.stage_interface import Context
from compress.training.loop import Recipe, Training, train
from compress.training.teachers import ModuleTeacher
from compress.weight_codecs.sparse_formats import zeros_alone
from hw_profiles.errors import InputError

_PARITY = 0.05  # of the largest logit: a sum in another order may round otherwise


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizeAware:
    """Quantization-aware training with learned scales (LSQ, 1902.08153) and the float network as teacher.

    It starts from the scales of the artifact, or if there are none, from the minima and maxima of calibration images.
    Batch normalization is folded. Zeros of an earlier stage stay zero. Weights have one scale per output channel,
    activations one per tensor; the gradient of a scale is divided by the square root of the number of values that it
    applies to times the largest integer. Operations without integer arithmetic, such as
    layer normalization, are computed in float, and their constants are not trained. ``weight`` and ``temperature`` are
    those of :class:`compress.Distill`.
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
        these integers.

        Raises:
            InputError: an ONNX file, or a module whose file has a node that cannot be trained, which is named.
        """
        if artifact.deployed is not None and artifact.precision != "int8":
            raise InputError(
                "QuantizeAware must come before the weights of an external network are stored in fewer bits"
            )
        teacher, artifact = artifact.model(), replace(artifact, deployed=None)
        graph, quantization = network_graph(artifact), artifact.quantization
        if quantization is None:
            found = START.calibrated(graph, artifact.preprocessing, context)
            graph, quantization = found.graph, found.quantization
        zeros = bool(zeros_alone(artifact.weight_formats))
        sparse = [name for name, value in graph.weights.items() if zeros and value.ndim > 1 and not value.all()]
        model = LearnedIntegers(graph.workload, graph.weights, quantization, nodes=graph.kept, sparse=sparse)
        images = artifact.preprocessing.tensor(context.data.train.images[:2])
        model.one_at_a_time = bool(graph.kept) and not _runs_in_batches(model, images)
        training = self.train(model, teacher, artifact.preprocessing, context)
        learnt = with_integers(artifact, graph.with_weights(model.weights_on_the_grid()), model.quantization())
        return replace(learnt, metrics={"training": asdict(training)})

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


@torch.no_grad()
def _runs_in_batches(model: LearnedIntegers, images: NDArray[np.float32]) -> bool:
    """Whether it says of images in a batch what it says of each alone: where nodes are kept as the file has them, that
    may be made for one image."""
    x = torch.from_numpy(images)
    try:
        together = model(x).numpy()
    except RuntimeError:  # a shape that fits one image
        return False
    return distance(together, torch.cat([model(each) for each in torch.split(x, 1)]).numpy()) < _PARITY
