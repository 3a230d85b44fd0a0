"""Stores the weights of an artifact in fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from compress.networks.artifact import Artifact
from compress.networks.network_graph import network_graph, with_weights
from compress.networks.onnx_export import onnx_bytes
from compress.networks.onnx_weights import with_file
from compress.weight_codecs.onnx_storage import Codec, Weight, store
from hw_profiles.errors import InputError
from hw_profiles.network.graph import Graph
from hw_profiles.network.tensor_formats import FLOAT32, TensorFormat
from hw_profiles.network.workload import WEIGHTED

Chosen = Callable[[Weight], bool]

# Of a channel's largest weight: a scale that was rounded again is off by less, a weight that was not by more.
_ALIKE = 0.01


def with_stored_weights(artifact: Artifact, codec: Codec, chosen: Chosen | None = None) -> Artifact:
    """The artifact with its ``chosen`` weights as ``codec`` stores them, where that is smaller; of another source than
    an Arch the file is changed. The same artifact where none is chosen, as all are stored in fewer bits already.

    Raises:
        InputError: the network is in integers already, its weights share values, or there is nothing to store.
    """
    require_float(artifact)
    return artifact.network.by_description(
        lambda arch: _stored_of_graph(artifact, codec, chosen),
        lambda: with_file(artifact, store(onnx_bytes(artifact), codec, chosen), "in fewer bits"),
    )


def _stored_of_graph(artifact: Artifact, codec: Codec, chosen: Chosen | None) -> Artifact:
    graph = network_graph(artifact)
    if chosen is not None and artifact.weight_formats and not any(map(chosen, _weights(graph))):
        return artifact  # all have fewer bits already
    rounded, formats = fewer_bits(graph, codec, chosen, artifact.weight_formats)
    if not formats:
        raise InputError("the network has no weights that would become smaller in fewer bits")
    return with_weights(artifact, rounded, formats)


def fewer_bits(
    graph: Graph, codec: Codec, chosen: Chosen | None, before: Mapping[str, TensorFormat]
) -> tuple[Graph, dict[str, TensorFormat]]:
    """The network with its ``chosen`` weights as ``codec`` stores them, where that is smaller, and their formats; those
    that it had ``before`` say how many are zero."""
    fitting = [each for each in _weights(graph) if chosen is None or chosen(each)]
    stored = [each for each in fitting if codec.stored(each).bytes < 4 * each.value.size]
    formats = {each.name: _format(codec, each, before) for each in stored}
    rounded = {each.name: each.shaped(codec.rounded(each.rows)) for each in stored}
    return graph.with_weights({**graph.weights, **rounded}), formats


def wider_than(artifact: Artifact, bits: int) -> Chosen:
    """What chooses the weights that the artifact stores in more bits than these.

    >>> from compress.networks.as_artifact import as_artifact
    >>> from search_spaces import preset
    >>> some = replace(as_artifact(preset("resnet8"), None), weight_formats={"a.weight": TensorFormat(bits=1)})
    >>> chosen = wider_than(some, 16)
    >>> [chosen(Weight(name, np.zeros((2, 2), np.float32))) for name in ("a.weight", "b.weight")]
    [False, True]
    """
    return lambda weight: artifact.weight_formats.get(weight.name, FLOAT32).bits > bits


def is_representable(codec: Codec, weight: Weight) -> bool:
    """Whether a weight has the values that ``codec`` stores, up to the rounding of scales."""
    rows = weight.rows
    limit = _ALIKE * np.abs(rows).max(axis=1, keepdims=True)
    return bool((np.abs(codec.rounded(rows) - rows) <= limit).all())


def require_float(artifact: Artifact) -> None:
    """Raise an InputError where the weights are integers or share values."""
    if artifact.precision == "int8":
        raise InputError("weights must be float32 to be stored in fewer bits: the network is in 8-bit integers already")
    shared = [name for name, stored in artifact.weight_formats.items() if stored.codebook]
    if shared:
        raise InputError(f"weights must be stored one by one to get other formats: those of {shared[0]} share values")


def _weights(graph: Graph) -> Iterator[Weight]:
    for op in graph.workload.ops:
        if op.kind in WEIGHTED:
            yield Weight(op.weight, graph.weights[op.weight], 1 if op.kind == "conv_transpose" else 0)


def _format(codec: Codec, weight: Weight, before: Mapping[str, TensorFormat]) -> TensorFormat:
    """The code's, with the zeros that there were; those of binary weights are gone."""
    stored = codec.format(weight.rows.shape[1])
    density = before[weight.name].density if weight.name in before and stored.bits > 1 else 1.0
    return replace(stored, density=density)
