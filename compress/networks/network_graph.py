"""Turns an artifact of any source into a Graph, and the integers found for the graph back into an artifact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compress.networks.artifact import Artifact
from compress.networks.batchnorm_folding import fold_normalisation
from compress.networks.folded_weights import with_folded_weights
from compress.networks.network_source import OnnxFile, Source, source_name
from compress.networks.onnx_export import folded_weights, onnx_bytes
from compress.networks.onnx_weights import with_int8_file
from compress.networks.torch_export import PARITY, distance
from compress.weight_codecs.sparse_formats import zeros_alone
from hw_profiles.errors import InputError
from hw_profiles.network.graph import Graph
from hw_profiles.network.quantization import Quantization
from hw_profiles.onnx_io.graph_reader import read_graph
from hw_profiles.onnx_io.rewrites.half_precision import in_float32
from hw_profiles.onnx_io.session import open_session
from hw_profiles.onnx_io.untrusted_file import load_model
from hw_profiles.onnx_io.writer import write_graph
from search_spaces.arch import Arch

_PARITY_RUNS = 2


def network_graph(artifact: Artifact, input_shape: tuple[int, ...] | None = None) -> Graph:
    """The float32 network of an artifact: of an Arch what it says of itself, of any other what its file says;
    ``input_shape`` is its input where a file leaves sizes open and they are not known otherwise.

    Raises:
        InputError: a module that cannot be exported, or a file that is no float32 network of one input, see
            :func:`hw_profiles.onnx_io.graph_reader.read_graph`.

    >>> from compress import Preprocessing
    >>> from search_spaces import build_model, preset
    >>> record = Preprocessing(channels=3, sizes=((32, 32),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=("a", "b"))
    >>> arch = preset("resnet8", num_classes=2)
    >>> artifact = Artifact(source=arch, weights={}, preprocessing=record).with_model(build_model(arch))
    >>> network_graph(artifact).weights["classifier.weight"].shape
    (2, 64)
    """
    if isinstance(artifact.source, Arch):
        workload = artifact.arch.workload()
        return Graph(workload=workload, weights=folded_weights(artifact.model(), workload))
    data = onnx_bytes(_folded(artifact))
    graph = read_graph(data, _sides(artifact.source, input_shape))
    _check_parity(graph, data, source_name(artifact.source))
    return graph


def _sides(source: Source, input_shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The sides that a file is read with; None where it says all."""
    if not isinstance(source, OnnxFile):
        return source.input_shape
    if source.stated_shape is not None:
        return source.stated_shape
    try:
        source.workload()
    except InputError:  # sides are open, or it is told what is wrong where it is read
        return input_shape
    return None


def _folded(artifact: Artifact) -> Artifact:
    """With batch normalisation folded in double precision, as that of an Arch is; the exporter folds what is left in
    single precision, where which layer one follows depends on the input."""
    if artifact.deployed is not None or isinstance(artifact.source, OnnxFile):
        return artifact
    model = artifact.model()
    try:
        fold_normalisation(model)
    except InputError:
        return artifact
    return artifact.with_model(model)


def with_integers(artifact: Artifact, graph: Graph, quantization: Quantization) -> Artifact:
    """The artifact with the weights and scales of its graph: an Arch by scales, any other network by an int8 file.

    Zeros that stages before made are still zeros, values that they shared are not.
    """
    if not isinstance(artifact.source, Arch):
        return with_int8_file(artifact, write_graph(graph, quantization))
    changed = with_folded_weights(artifact, graph.weights)
    return replace(changed, quantization=quantization, weight_formats=zeros_alone(artifact.weight_formats))


def _check_parity(graph: Graph, data: bytes, label: str) -> None:
    """That the file was read right: what is written of the graph says the same of random images."""
    batch, *sides = graph.workload.shapes[graph.workload.input]
    x = np.random.default_rng(0).standard_normal((_PARITY_RUNS, batch, *sides)).astype(np.float32)
    wide: bytes = in_float32(load_model(data)).SerializeToString()
    expected, got = (_outputs(each, x) for each in (wide, write_graph(graph)))
    off = distance(got, expected)
    if not off < PARITY:
        raise InputError(f"{label}: its outputs changed by {off:.1e} after its file was read and written again")


def _outputs(data: bytes, x: np.ndarray) -> np.ndarray:
    """What a file makes of each batch."""
    session = open_session(data)
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    return np.concatenate([session.run([output], {name: batch})[0] for batch in x])
