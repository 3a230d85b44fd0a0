"""Sensitivity of each operation to low precision: what it loses and what it saves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from compress.data.dataset import Split
from compress.networks.artifact import Artifact
from compress.networks.folded_weights import with_folded_weights
from compress.networks.onnx_export import folded_weights, onnx_bytes
from compress.networks.onnx_weights import with_int8_file
from compress.networks.store_weights import with_stored_weights
from compress.quantization.int8.bias_correction import corrected_biases_of
from compress.quantization.int8.fidelity import FidelityEvaluator
from compress.stage_interface import Context
from compress.weight_codecs.codecs import GROUP, Int4Codec, quantized_groups
from compress.weight_codecs.onnx_storage import Floats, weights_of
from hw_profiles.errors import InputError
from hw_profiles.latency.estimate import Latency, estimate
from hw_profiles.network.graph import Graph
from hw_profiles.network.quantization import Quantization, with_in_float
from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.network.workload import WEIGHTED
from hw_profiles.onnx_io.untrusted_file import load_model
from hw_profiles.onnx_io.writer import write_graph, write_onnx
from hw_profiles.runtimes.fusion import fuse
from search_spaces.arch import Arch

LOW_BITS = (8, 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """What one operation in low precision costs and saves.

    ``divergence``: mean Kullback-Leibler divergence of the class probabilities from the float network's, in nats, when
    it alone is in low precision. ``saved_bytes`` of weights and ``saved_ms``, estimated: against the network in which
    all others are in low precision and it is not; below zero where low precision is slower.
    """

    name: str
    divergence: float
    saved_bytes: int
    saved_ms: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lowering:
    """``bits`` 8: operations in 8-bit integers by the artifact's scales, or in float. 4: weights as 4-bit integers,
    in groups of ``group`` in a float network and for each channel in an int8 one, or as they are; ``biases`` are those
    of operations while they are in low precision, the artifact's own where none are given.
    """

    bits: int = 8
    group: int = GROUP
    biases: Mapping[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.bits not in LOW_BITS:
            raise InputError(f"bits must be one of {', '.join(map(str, LOW_BITS))}, got {self.bits}")

    def __call__(self, artifact: Artifact, raised: Collection[str] = ()) -> Artifact:
        """The artifact with all its weighted operations in low precision but the ``raised`` ones.

        Raises:
            InputError: 8 bits and the artifact has no scales, or operations in float already.
        """
        if self.bits == 8:
            return _in_float(artifact, raised)
        lowered = [name for name in weighted_operations(artifact) if name not in raised]
        if not lowered:
            return artifact
        if not isinstance(artifact.source, Arch):
            return with_stored_weights(artifact, Int4Codec(self.group), lambda weight: weight.name in lowered)
        if artifact.quantization is not None:
            changed = packed_integers(artifact, lowered)
        else:
            chosen = {f"{name}.weight" for name in lowered}
            changed = with_stored_weights(artifact, Int4Codec(self.group), lambda weight: weight.name in chosen)
        biases = {name: value for name, value in self.biases.items() if name.removesuffix(".bias") in lowered}
        return with_folded_weights(changed, biases)

    def operations(self, artifact: Artifact) -> list[str]:
        """What can be in low precision."""
        return weighted_operations(artifact)

    def corrected(self, artifact: Artifact, context: Context) -> Lowering:
        """With the biases that undo what 4 bits do to the mean of each channel of an Arch; 8 bits as they are."""
        if self.bits == 8 or not isinstance(artifact.source, Arch):
            return self
        return replace(self, biases=corrected_biases_of(self(artifact), artifact, context))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FileLowering:
    """The file of a network that is no Arch: its operations in 8-bit integers by these scales, or in float."""

    graph: Graph
    quantization: Quantization

    def operations(self, artifact: Artifact) -> list[str]:
        """What can be in low precision."""
        return [op.name for op in self.graph.workload.ops if op.kind in WEIGHTED]

    def __call__(self, artifact: Artifact, raised: Collection[str] = ()) -> Artifact:
        """The artifact with all its weighted operations in integers but the ``raised`` ones."""
        scales = with_in_float(self.graph.workload, self.quantization, raised)
        return with_int8_file(artifact, write_graph(self.graph, scales))


def sensitivity(
    artifact: Artifact, context: Context, lowering: Lowering | FileLowering, *, images: int = 256
) -> tuple[Sensitivity, ...]:
    """Each weighted operation's, in their order, on training images drawn by the context's seed.

    Raises:
        InputError: see :class:`Lowering`.
    """
    names = lowering.operations(artifact)
    evaluator = fidelity_evaluator(artifact, context.data.train.some(images, context.seed))
    before = lowering(artifact)
    bytes_, ms = before.workload().weight_bytes, estimated(before, context).ms
    found = []
    for i, name in enumerate(names):
        context.report(i / len(names), "one operation after the other")
        alone = lowering(artifact, [other for other in names if other != name])
        without = lowering(artifact, [name])
        found.append(
            Sensitivity(
                name=name,
                divergence=evaluator(onnx_bytes(alone)).divergence,
                saved_bytes=without.workload().weight_bytes - bytes_,
                saved_ms=estimated(without, context).ms - ms,
            )
        )
    return tuple(found)


def packed_integers(artifact: Artifact, names: Collection[str]) -> Artifact:
    """An int8 artifact with the weights of these operations as integers -7..7, a scale for each output channel."""
    assert artifact.quantization is not None
    workload = artifact.arch.workload()
    weights = folded_weights(artifact.model(), workload)
    rounded, scales = {}, {}
    for name in (f"{name}.weight" for name in names):
        rows = weights[name].reshape(len(weights[name]), -1)
        integers, steps = quantized_groups(rows)
        rounded[name] = (integers * steps).astype(np.float32).reshape(weights[name].shape)
        scales[name] = steps[:, 0]
    changed = with_folded_weights(artifact, {**weights, **rounded})
    return replace(
        changed,
        quantization=replace(artifact.quantization, weights={**artifact.quantization.weights, **scales}),
        weight_formats={**artifact.weight_formats, **dict.fromkeys(rounded, TensorFormat(bits=4, per_channel=True))},
    )


def weighted_operations(artifact: Artifact) -> list[str]:
    """The operations of an Arch that have weights; the weights of another network's float file by their own names."""
    if not isinstance(artifact.source, Arch):
        return [weight.name for weight in weights_of(load_model(onnx_bytes(artifact)).graph)]
    return [op.name for op in artifact.arch.workload().ops if op.kind in WEIGHTED]


def fidelity_evaluator(artifact: Artifact, split: Split) -> FidelityEvaluator:
    """What compares files with the artifact's float32 network on these images; with its file where it is no Arch."""
    if isinstance(artifact.source, Arch):
        workload = artifact.source.workload()
        data = write_onnx(workload, folded_weights(artifact.model(), workload))
    else:
        data = onnx_bytes(artifact)
    labels = split.labels if split.is_labelled else None
    return FidelityEvaluator(data, artifact.preprocessing.tensor(split.images), labels)


def estimated(artifact: Artifact, context: Context) -> Latency:
    """The latency that the device's table says."""
    workload = artifact.workload()
    return estimate(workload, fuse(workload, context.device.runtime), context.device)


def ranked(table: Collection[Sensitivity], *, by_latency: bool) -> Iterator[Sensitivity]:
    """The operations whose low precision loses most for what it saves first; those that it makes dearer before all.

    >>> rows = [Sensitivity(name="a", divergence=2, saved_bytes=9, saved_ms=0.1),
    ...         Sensitivity(name="b", divergence=1, saved_bytes=2, saved_ms=0.1)]
    >>> [row.name for row in ranked(rows, by_latency=False)], [row.name for row in ranked(rows, by_latency=True)]
    (['b', 'a'], ['a', 'b'])
    """

    def gain(row: Sensitivity) -> tuple[bool, float]:
        saved = row.saved_ms if by_latency else float(row.saved_bytes)
        return saved <= 0, row.divergence / saved if saved > 0 else row.divergence

    yield from sorted(table, key=gain, reverse=True)


def _in_float(artifact: Artifact, raised: Collection[str]) -> Artifact:
    if artifact.quantization is None:
        raise InputError("an int8 network is required, this one is not quantized")
    if artifact.quantization.in_float:
        raise InputError("a network with all operations in int8 is required, in this one some are in float")
    workload = artifact.arch.workload()
    return replace(artifact, quantization=with_in_float(workload, artifact.quantization, raised))
