"""Sensitivity of each operation to low precision: what it loses and what it saves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from compress.networks.artifact import Artifact
from compress.networks.network_graph import with_integers, with_weights
from compress.networks.onnx_export import onnx_bytes
from compress.networks.store_weights import fewer_bits
from compress.quantization.int8.bias_correction import biases_after_rounding
from compress.quantization.int8.fidelity import FidelityEvaluator
from compress.stage_interface import Context
from compress.weight_codecs.codecs import GROUP, Int4Codec, quantized_groups
from compress.weight_codecs.onnx_storage import Floats
from hw_profiles.errors import InputError
from hw_profiles.latency.estimate import Latency, estimate
from hw_profiles.network.graph import Graph
from hw_profiles.network.quantization import Quantization, with_in_float
from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.network.workload import WEIGHTED, Op
from hw_profiles.runtimes.fusion import fuse

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


@dataclass(frozen=True, slots=True, eq=False)
class EightBits:
    """Operations in 8-bit integers by these scales, or in float. ``artifact`` is the network all in integers.

    Raises:
        InputError: the scales have operations in float already.
    """

    artifact: Artifact
    graph: Graph
    quantization: Quantization

    def __post_init__(self) -> None:
        if self.artifact.quantization is not None and self.artifact.quantization.in_float:
            raise InputError("a network with all operations in int8 is required, but some of this one are in float32")

    def __call__(self, raised: Collection[str] = ()) -> Artifact:
        """The artifact with all its weighted operations in integers but the ``raised`` ones."""
        scales = with_in_float(self.graph.workload, self.quantization, raised)
        if self.artifact.quantization is not None:  # its weights are those of the graph
            return replace(self.artifact, quantization=scales)
        return with_integers(self.artifact, self.graph, scales)


@dataclass(frozen=True, slots=True, eq=False)
class FourBits:
    """Weights as 4-bit integers, in groups of ``group`` in a float network and for each channel in an int8 one, or as
    they are; ``biases`` are those of operations while they are in low precision, the network's own where none are
    given.
    """

    artifact: Artifact
    graph: Graph
    group: int = GROUP
    biases: Mapping[str, Floats] = field(default_factory=dict)

    def __call__(self, raised: Collection[str] = ()) -> Artifact:
        """The artifact with all its weights in 4 bits but those of the ``raised`` operations."""
        lowered = [op for op in weighted_operations(self.graph) if op.name not in raised]
        if not lowered:
            return self.artifact
        graph, quantization, formats = self._lowered(lowered)
        biases = {op.bias_name: self.biases[op.bias_name] for op in lowered if op.bias_name in self.biases}
        changed = with_weights(self.artifact, graph.with_weights({**graph.weights, **biases}), formats)
        return replace(changed, quantization=quantization)

    def corrected(self, context: Context) -> FourBits:
        """With the biases that undo what 4 bits do to the mean of each channel."""
        ops = weighted_operations(self.graph)
        graph, quantization, _ = self._lowered(ops)
        biases = biases_after_rounding(graph, quantization, self.graph, self.artifact.preprocessing, context)
        return replace(self, biases=biases)

    def _lowered(self, ops: Sequence[Op]) -> tuple[Graph, Quantization | None, dict[str, TensorFormat]]:
        """Of an int8 network weights as integers -7..7, a scale for each output channel."""
        names = {op.weight for op in ops}
        quantization = self.artifact.quantization
        if quantization is None:
            graph, formats = fewer_bits(
                self.graph, Int4Codec(self.group), lambda weight: weight.name in names, self.artifact.weight_formats
            )
            return graph, None, formats
        rounded, scales = {}, {}
        for name in names:
            value = self.graph.weights[name]
            integers, steps = quantized_groups(value.reshape(len(value), -1))
            rounded[name] = (integers * steps).astype(np.float32).reshape(value.shape)
            scales[name] = steps[:, 0]
        formats = dict.fromkeys(rounded, TensorFormat(bits=4, per_channel=True))
        quantization = replace(quantization, weights={**quantization.weights, **scales})
        return self.graph.with_weights({**self.graph.weights, **rounded}), quantization, formats


def sensitivity(
    lowering: EightBits | FourBits, evaluator: FidelityEvaluator, context: Context
) -> tuple[Sensitivity, ...]:
    """Each weighted operation's, in their order; ``evaluator`` compares files with the float network."""
    names = [op.name for op in weighted_operations(lowering.graph)]
    before = lowering()
    bytes_, ms = before.workload().weight_bytes, estimated(before, context).ms
    found = []
    for i, name in enumerate(names):
        context.report(i / len(names), "one operation after the other")
        alone = lowering([other for other in names if other != name])
        without = lowering([name])
        found.append(
            Sensitivity(
                name=name,
                divergence=evaluator(onnx_bytes(alone)).divergence,
                saved_bytes=without.workload().weight_bytes - bytes_,
                saved_ms=estimated(without, context).ms - ms,
            )
        )
    return tuple(found)


def weighted_operations(graph: Graph) -> list[Op]:
    """The operations that can be in low precision."""
    return [op for op in graph.workload.ops if op.kind in WEIGHTED]


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
