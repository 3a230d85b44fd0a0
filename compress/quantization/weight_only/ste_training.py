"""Training with weights that are rounded in each step (straight-through estimator)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.distillation.guided_training import guided_training
from compress.networks.artifact import Artifact
from compress.networks.store_weights import is_representable, require_float, with_stored_weights
from compress.networks.weight_layers import WeightLayer, layers_of, weighted_layers
from compress.stage_interface import Context
from compress.training.loop import Recipe
from compress.weight_codecs.onnx_storage import Codec
from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import FLOAT32, TensorFormat

Rounding = Callable[[Tensor], Tensor]


class StraightThrough(nn.Module):
    """A parametrization: the weight is rounded, and its gradient is that of the rounded one (1308.3432).

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = parametrize.register_parametrization(layer, "weight", StraightThrough(lambda weight: weight.sign()))
    >>> layer.weight.sum().backward()
    >>> layer.weight.abs().tolist(), layer.parametrizations.weight.original.grad.tolist()
    ([[1.0, 1.0]], [[1.0, 1.0]])
    """

    def __init__(self, rounding: Rounding) -> None:
        super().__init__()
        self.rounding = rounding

    def forward(self, weight: Tensor) -> Tensor:
        """The rounded weight."""
        detached = weight.detach()
        return self.rounding(detached) + (weight - detached)


def train_straight_through(
    artifact: Artifact,
    context: Context,
    *,
    recipe: Recipe,
    codec: Codec,
    rounding: Callable[[Tensor], Rounding],
    chosen: Callable[[Mapping[str, WeightLayer]], Sequence[str]] = list,
) -> Artifact:
    """The artifact after a training in which the ``chosen`` layers are rounded, led by what it was, and stored by
    ``codec``; ``rounding`` gives for the weight that a layer has what rounds it.

    Raises:
        InputError: no layer is chosen, or the network is in integers already.
    """
    require_float(artifact)
    model = artifact.model()
    layers = weighted_layers(model)
    names = chosen(layers)
    if not names:
        raise InputError(f"of {len(layers)} layers with weights at least one must be one to round, none is")
    training = guided_training(
        recipe, context.data, model, artifact.preprocessing, seed=context.seed, checkpoint=context.checkpoint,
        report=context.report,
    )  # fmt: skip
    assert training is not None
    for name in names:
        parametrize.register_parametrization(
            layers[name], "weight", StraightThrough(rounding(layers[name].weight)), unsafe=True
        )
    training(model)
    for name in names:
        parametrize.remove_parametrizations(layers[name], "weight", leave_parametrized=True)
    learnt = replace(artifact.with_model(model), weight_formats=_zeros_left(artifact, model))
    trained = with_stored_weights(learnt, codec, lambda weight: is_representable(codec, weight))
    return replace(trained, metrics={**artifact.metrics, **training.metrics()})


def _zeros_left(artifact: Artifact, model: nn.Module) -> dict[str, TensorFormat]:
    """What is still true of the formats that the weights had: where they have the zeros that they had."""
    layers = layers_of(artifact, model)
    found: dict[str, TensorFormat] = {}
    for name, stored in artifact.weight_formats.items():
        layer = layers.get(name.removesuffix(".weight"))
        if stored.bits == FLOAT32.bits and layer is not None:
            share = float(layer.weight.count_nonzero()) / layer.weight.numel()
            found |= {name: stored} if share <= stored.density else {}
    return found
