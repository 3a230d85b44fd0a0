"""The stages Cluster and Sparsify on a module alone, without an artifact around it."""

from __future__ import annotations

from typing import Any

from torch import nn

from compress.clustering.cluster import Cluster, Clusters
from compress.data.dataset import Dataset
from compress.distillation.guided_training import guided_training
from compress.networks.weight_layers import weighted_layers
from compress.sparsity.sparsify import Amount, Sparsify, densities, validation_loss


def cluster_module(
    model: nn.Module, clusters: Clusters = 16, *, data: Dataset | None = None, seed: int = 0, **options: Any
) -> dict[str, int]:
    """Let each layer of any module share a few values, in place; how many each has, by its name.

    Normalizations that follow a layer are folded into it. With ``data`` (of the size that the module reads) the values
    are trained, with the earlier module as teacher. ``options`` are those of :class:`Cluster`.
    """
    stage = Cluster(clusters=clusters, **options)
    training = None if data is None else guided_training(stage.recipe, data, model, data.preprocessing, seed=seed)
    shape = None if data is None else data.preprocessing.input_shape
    return stage.apply(model, weighted_layers(model), training, seed=seed, input_shape=shape)


def sparsify_module(
    model: nn.Module, amount: Amount = 0.8, *, data: Dataset | None = None, seed: int = 0, **options: Any
) -> dict[str, float]:
    """Make any module sparse in place; its layers' densities (share of weights that are not zero) by name.

    With ``data`` (of the size that the module reads) it is trained while it becomes sparse, with its earlier self as
    teacher; without data, the weakest weights leave at once. ``options`` are those of :class:`Sparsify`.
    """
    if data is None:
        options = {"schedule": "iterative", "recipe": None, **options}
    stage = Sparsify(amount=amount, **options)
    layers = weighted_layers(model)
    training = loss_of = None
    if data is not None:
        training = guided_training(stage.recipe, data, model, data.preprocessing, seed=seed, parts=stage.rounds)
        loss_of = validation_loss(data, data.preprocessing)
    stage.apply(model, layers, training, loss_of)
    return densities(layers)
