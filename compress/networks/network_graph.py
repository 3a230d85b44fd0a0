"""Turns an artifact of any source into a Graph, and the integers found for the graph back into an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from compress.data.dataset import Split
from compress.data.network_inputs import Inputs, NamedInputs, checked_inputs, sides_of
from compress.data.preprocessing import Preprocessing
from compress.networks.artifact import Artifact
from compress.networks.batchnorm_folding import fold_normalisation
from compress.networks.network_interface import Network
from compress.networks.onnx_export import folded_weights, onnx_bytes, with_folded_weights
from compress.networks.onnx_weights import with_file, with_int8_file
from compress.networks.torch_export import PARITY, distance
from compress.weight_codecs.apply_formats import store_formats
from compress.weight_codecs.sparse_formats import zeros_alone
from hw_profiles.errors import InputError
from hw_profiles.network.graph import FLOAT, Graph, Value
from hw_profiles.network.quantization import Quantization
from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.network.workload import InputShape, Shape, Workload
from hw_profiles.onnx_io.graph_reader import read_graph
from hw_profiles.onnx_io.rewrites.half_precision import in_float32
from hw_profiles.onnx_io.session import open_session, run_session
from hw_profiles.onnx_io.untrusted_file import load_model
from hw_profiles.onnx_io.writer import write_graph

_PARITY_RUNS = 2


def network_graph(artifact: Artifact, given: Inputs | None = None) -> Graph:
    """The float32 network of an artifact: of an Arch what it says of itself, of any other what its file says; ``given``
    are inputs of it, for sizes that a file leaves open and where they are not known otherwise.

    Raises:
        InputError: a module that cannot be exported, or a file that is no float32 network, see
            :func:`hw_profiles.onnx_io.graph_reader.read_graph`.

    >>> from compress import Preprocessing
    >>> from search_spaces import build_model, preset
    >>> record = Preprocessing(channels=3, sizes=((32, 32),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=("a", "b"))
    >>> arch = preset("resnet8", num_classes=2)
    >>> artifact = Artifact(source=arch, weights={}, preprocessing=record).with_model(build_model(arch))
    >>> network_graph(artifact).weights["classifier.weight"].shape
    (2, 64)
    """
    return artifact.network.by_description(
        lambda arch: _graph_of(arch.workload(), artifact), lambda: _file_graph(artifact, given)
    )


def _graph_of(workload: Workload, artifact: Artifact) -> Graph:
    return Graph(workload=workload, weights=folded_weights(artifact.model(), workload))


def _file_graph(artifact: Artifact, given: Inputs | None) -> Graph:
    data = onnx_bytes(_folded(artifact))
    graph = read_graph(data, _sides(artifact.network, given))
    _check_parity(graph, data, artifact.network.label, given)
    return graph


def inputs_of(graph: Graph, preprocessing: Preprocessing, split: Split) -> NamedInputs:
    """What the network reads of these images, each input in its type.

    Raises:
        InputError: see :func:`compress.data.network_inputs.checked_inputs`.
    """
    return checked_inputs(graph.input_values, preprocessing.tensor(split.images))


def _sides(network: Network, given: Inputs | None) -> InputShape:
    """The sides that a file is read with; None where it says all."""
    if network.stated_shape is not None or network.file is None:
        return network.stated_shape
    try:
        network.workload()
    except InputError:  # sides are open, or it is told what is wrong where it is read
        return None if given is None else sides_of(given)
    return None


def _folded(artifact: Artifact) -> Artifact:
    """With batch normalisation folded in double precision, as that of an Arch is; the exporter folds what is left in
    single precision, where which layer one follows depends on the input."""
    if artifact.deployed is not None or not artifact.weights:
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
    return artifact.network.by_description(
        lambda arch: replace(
            with_folded_weights(artifact, graph.weights),
            quantization=quantization,
            weight_formats=zeros_alone(artifact.weight_formats),
        ),
        lambda: with_int8_file(artifact, write_graph(graph, quantization)),
    )


def with_weights(
    artifact: Artifact, graph: Graph, formats: Mapping[str, TensorFormat] = MappingProxyType({})
) -> Artifact:
    """The artifact with the weights of its graph, of which those in ``formats`` are stored so: an Arch says it, of any
    other network the file is written so."""
    return artifact.network.by_description(
        lambda arch: replace(
            with_folded_weights(artifact, graph.weights), weight_formats={**artifact.weight_formats, **formats}
        ),
        lambda: with_file(artifact, store_formats(write_graph(graph), formats), "with other weights"),
    )


def _check_parity(graph: Graph, data: bytes, label: str, given: Inputs | None) -> None:
    """That the file was read right: what is written of the graph says the same of random images, or of what is
    ``given`` for several inputs or one that is not float32."""
    values, shapes = graph.input_values, graph.workload.shapes
    numbers = np.random.default_rng(0)
    if given is not None and [each.data_type for each in values] != [FLOAT]:
        feeds = list(checked_inputs(values, given).feeds(1))
    else:
        feeds = [{each.name: _random(numbers, each, shapes[each.name]) for each in values} for _ in range(_PARITY_RUNS)]
    wide: bytes = in_float32(load_model(data)).SerializeToString()
    expected, got = (_outputs(each, feeds) for each in (wide, write_graph(graph)))
    off = max(distance(one, other) for one, other in zip(got, expected, strict=True))
    if not off < PARITY:
        raise InputError(f"{label}: its outputs changed by {off:.1e} after its file was read and written again")


def _random(numbers: np.random.Generator, value: Value, shape: Shape) -> NDArray[Any]:
    """Numbers for an input; those that are not float may be the places of a table, of which there is a second one."""
    kind = helper.tensor_dtype_to_np_dtype(value.data_type)
    return numbers.standard_normal(shape).astype(np.float32) if kind == np.float32 else np.ones(shape, kind)


def _outputs(data: bytes, feeds: Sequence[Mapping[str, NDArray[Any]]]) -> list[NDArray[Any]]:
    """What a file makes of each batch, by output."""
    session = open_session(data)
    names = [each.name for each in session.get_outputs()]
    runs = [run_session(session, names, feed) for feed in feeds]
    return [np.concatenate([np.atleast_1d(each) for each in of_output]) for of_output in zip(*runs, strict=True)]
