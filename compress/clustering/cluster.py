"""The stage Cluster: the weights of each layer are replaced by a few shared values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.argument_checks import is_whole
from compress.clustering.kmeans_1d import STARTS
from compress.clustering.shared_weights import apply_weight_sharing, remove_weight_sharing
from compress.distillation.guided_training import Learn, guided_training
from compress.networks.artifact import Artifact
from compress.networks.batchnorm_folding import fold_normalization, frozen_batchnorm
from compress.networks.onnx_export import folded_weights
from compress.networks.onnx_weights import with_changed_weights
from compress.networks.weight_layers import WeightLayer, layers_of, per_layer_setting
from compress.stage_interface import Context
from compress.training.loop import Recipe
from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import FLOAT32, TensorFormat
from hw_profiles.network.workload import InputShape
from hw_profiles.spelling_suggestions import check_one_of

Clusters = int | Mapping[str, int]

Steps = Mapping[str, NDArray[np.float32]]
MOST_CLUSTERS = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Restrict the weights of each layer to ``clusters`` non-zero values, found by k-means, then fine-tune these values
    with the earlier network as teacher (Deep Compression, 1510.00149). Weights that are zero stay zero.

    ``clusters``: of every layer, or by layer or kind (``{"conv": 256, "linear": 32}``; others are not clustered);
    ``bits`` gives it as a power of two. ``start``: initial values evenly spaced between the extremes (``"linear"``), at
    quantiles of the weights (``"density"``) or ``"random"``. Clustering is applied to the deployed weights (batch
    normalization folded, or the integers of an int8 network). ``recipe`` None disables fine-tuning.

    >>> Cluster(bits=4).name
    'cluster'
    """

    name: ClassVar[str] = "cluster"
    lossy: ClassVar[bool] = True

    clusters: Clusters = 16
    bits: Clusters | None = None
    start: str = "linear"
    recipe: Recipe | None = Recipe(epochs=4, learning_rate=0.01)

    def __post_init__(self) -> None:
        wanted = self._wanted()
        for each in wanted.values() if isinstance(wanted, Mapping) else [wanted]:
            if not is_whole(each, 2, MOST_CLUSTERS):
                raise InputError(f"Cluster.clusters must be between 2 and {MOST_CLUSTERS} (1 to 16 bits), got {each!r}")
        check_one_of("Cluster.start", self.start, STARTS)

    def _wanted(self) -> Clusters:
        if self.bits is None:
            return self.clusters
        if isinstance(self.bits, Mapping):
            return {name: _power(bits) for name, bits in self.bits.items()}
        return _power(self.bits)

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The same network with shared weights, each normalization folded into the weights before it."""
        check_can_share(artifact)
        if self.recipe is None and artifact.quantization is None:
            return self._untrained(artifact, context)
        model = artifact.model()
        training = guided_training(
            self.recipe, context.data, model, artifact.preprocessing, seed=context.seed,
            checkpoint=context.checkpoint, report=context.report,
        )  # fmt: skip
        layers, steps = layers_of(artifact, model), integer_steps(artifact)
        books = self.apply(
            model, layers, training, steps=steps, seed=context.seed, input_shape=artifact.network.stated_shape
        )
        formats = {f"{name}.weight": stored_as(layers[name], book, name in steps) for name, book in books.items()}
        changed = replace(
            artifact.with_model(model),
            weight_formats={**artifact.weight_formats, **formats},
            metrics={**(training.metrics() if training else {}), "codebooks": books},
        )
        if artifact.quantization is None:
            return changed
        scales = {**artifact.quantization.weights, **{f"{name}.weight": value for name, value in steps.items()}}
        return replace(changed, quantization=replace(artifact.quantization, weights=scales))

    def _untrained(self, artifact: Artifact, context: Context) -> Artifact:
        books: dict[str, int] = {}

        def change(model: nn.Module, layers: Mapping[str, WeightLayer]) -> dict[str, TensorFormat]:
            books.update(self.apply(model, layers, seed=context.seed, input_shape=artifact.network.stated_shape))
            return {name: stored_as(layers[name], values, False) for name, values in books.items()}

        done = with_changed_weights(artifact, change)
        return replace(done, metrics={**done.metrics, "codebooks": books})

    def apply(
        self,
        model: nn.Module,
        layers: Mapping[str, WeightLayer],
        learn: Learn | None = None,
        *,
        steps: Steps | None = None,
        seed: int = 0,
        input_shape: InputShape = None,
    ) -> dict[str, int]:
        """Share the weights of ``layers`` of ``model`` in place, by any training; how many values each has.

        ``steps``: layers whose weights are integers of these scales, (out_channels,) or (). ``input_shape`` (C, H, W)
        is what a module reads that ``torch.fx`` cannot follow.
        """
        with frozen_batchnorm(fold_normalization(model, input_shape)) as evaluate:
            shared = {}
            chosen = per_layer_setting(self._wanted(), layers, "Cluster.clusters")
            try:
                for name, clusters in chosen.items():
                    if layers[name].weight.count_nonzero():
                        shared[name] = apply_weight_sharing(
                            layers[name], clusters, self.start, seed, (steps or {}).get(name)
                        )
                if learn is not None:
                    with _held([layers[name].weight for name in chosen if name not in shared]):
                        learn(model, lambda over: evaluate())
            finally:
                remove_weight_sharing({name: layers[name] for name in shared})
        return {name: len(each.roots) for name, each in shared.items()}


@contextmanager
def _held(weights: Sequence[Tensor]) -> Iterator[None]:
    """While it lasts, these do not learn: weights that are all zero, as a network that begins without a branch has."""
    learning = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight, learns in zip(weights, learning, strict=True):
            weight.requires_grad_(learns)


def check_can_share(artifact: Artifact) -> None:
    """Raise an InputError where shared values would undo what an earlier stage made of the file."""
    stored = artifact.deployed is not None and bool(artifact.weights)  # an ONNX file is all there is
    if stored or any(f.bits < FLOAT32.bits and not f.codebook for f in artifact.weight_formats.values()):
        raise InputError("Cluster must run before int8 or low-bit storage, but this network is already quantized")


def integer_steps(artifact: Artifact) -> dict[str, NDArray[np.float32]]:
    """The scales of the weights that an int8 artifact keeps as integers, by operation; none of a float one."""
    if artifact.quantization is None:
        return {}
    workload, quantization = artifact.source.workload(), artifact.quantization
    weights = folded_weights(artifact.model(), workload)
    return {
        op.name: quantization.scales_of(op.weight, weights[op.weight])
        for op in workload.ops
        if op.weight in weights and op.name not in quantization.in_float
    }


def stored_as(layer: WeightLayer, values: int, integers: bool) -> TensorFormat:
    """The format of a layer's weight that takes so many values besides zero."""
    return TensorFormat(
        bits=max(1, math.ceil(math.log2(values))),
        floating=not integers,
        per_channel=integers,
        codebook=values,
        density=float(layer.weight.count_nonzero()) / layer.weight.numel(),
    )


def _power(bits: int) -> int:
    return 1 << bits if is_whole(bits, 0, 64) else 0
