"""Turns an artifact of any source into a Graph, and the integers found for the graph back into an artifact."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
from compress.networks.batchnorm_folding import fold_normalization
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
_OTHER_SIDES: tuple[Callable[[int], int], ...] = (
    lambda side: 2 * side, lambda side: side + 1, lambda side: max(side - 1, 1)
)  # fmt: skip

Feed = Mapping[str, NDArray[Any]]


def network_graph(artifact: Artifact, given: Inputs | None = None) -> Graph:
    """The float32 network of an artifact: of an Arch what it says of itself, of any other what its file says; ``given``
    are inputs of it, for sizes that a file leaves open and where they are not known otherwise. These and the batch are
    closed where what was read does not hold for others.

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
    files = _files(graph, data)
    feeds = _feeds(graph, given)
    _check_parity(files, feeds, artifact.network.label)
    return _closed(graph, files, feeds)


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
    """With batch normalization folded in double precision, as that of an Arch is; the exporter folds what is left in
    single precision, where which layer one follows depends on the input."""
    if artifact.deployed is not None or not artifact.weights:
        return artifact
    model = artifact.model()
    try:
        fold_normalization(model)
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


def _files(graph: Graph, data: bytes) -> tuple[Any, Any]:
    """Sessions of a file, in float32, and of what is written of its graph."""
    wide: bytes = in_float32(load_model(data)).SerializeToString()
    return open_session(wide), open_session(write_graph(graph))


def _feeds(graph: Graph, given: Inputs | None) -> list[Feed]:
    """Random images, or what is ``given`` for several inputs or one that is not float32, as each call reads them."""
    values, shapes = graph.input_values, graph.workload.shapes
    numbers = np.random.default_rng(0)
    if given is None or [each.data_type for each in values] == [FLOAT]:
        return [{each.name: _random(numbers, each, shapes[each.name]) for each in values} for _ in range(_PARITY_RUNS)]
    batch = max((each.shape[0] for each in values if each.shape and isinstance(each.shape[0], int)), default=1)
    return list(checked_inputs(values, given).filled(batch).feeds(batch))


def _random(numbers: np.random.Generator, value: Value, shape: Shape) -> NDArray[Any]:
    """Numbers for an input; those that are not float may be the places of a table, of which there is a second one."""
    kind = helper.tensor_dtype_to_np_dtype(value.data_type)
    return numbers.standard_normal(shape).astype(np.float32) if kind == np.float32 else np.ones(shape, kind)


def _check_parity(files: tuple[Any, Any], feeds: Sequence[Feed], label: str) -> None:
    """Raise an InputError unless a file was read right: what is written of the graph says the same."""
    off = float(np.max([_apart(files, feed) for feed in feeds]))
    if not off < PARITY:
        raise InputError(f"{label}: its outputs changed by {off:.1e} after its file was read and written again")


def _apart(files: tuple[Any, Any], feed: Feed) -> float:
    """How far two files are apart in the output that is farthest: of the first one, and of all in floating point."""
    names = [output.name for output in files[0].get_outputs()]
    expected, got = (run_session(session, names, feed) for session in files)
    found = [
        distance(np.atleast_1d(b), np.atleast_1d(a))
        for i, (a, b) in enumerate(zip(expected, got, strict=True))
        if np.asarray(a).dtype.kind in ("f" if i else "fiub")
    ]
    return float(np.max([0.0, *found]))  # which keeps a NaN


def _closed(graph: Graph, files: tuple[Any, Any], feeds: Sequence[Feed]) -> Graph:
    """The graph with the batch, and with the sides, for which it was read, where its file leaves them open but what was
    read does not hold for others: where the file reshapes to sides of one image, or pads by what the sides are."""
    values = graph.input_values
    of_batch = {key for each in values if (key := _open_side(each, 0))}
    of_sides = {key for each in values for i in range(len(each.shape)) if (key := _open_side(each, i))} - of_batch
    if of_batch and not _holds(files, _with_other(values, feeds, of_batch, _OTHER_SIDES[0])):
        graph = _with_closed(graph, of_batch)
    held = {_holds(files, _with_other(values, feeds, of_sides, change)) for change in _OTHER_SIDES if of_sides}
    return _with_closed(graph, of_sides) if False in held or held == {None} else graph


def _open_side(value: Value, i: int) -> str:
    """What the i-th side of an input is called where it is open, else nothing."""
    side = value.shape[i] if i < len(value.shape) else 0
    return "" if isinstance(side, int) else side or f"{value.name}.{i}"


def _with_other(
    values: Sequence[Value], feeds: Sequence[Feed], sides: Collection[str], change: Callable[[int], int]
) -> Feed:
    """The numbers of all calls as one reads them, with other numbers for these sides."""
    found = {}
    for each in values:
        shape = enumerate(feeds[0][each.name].shape)
        other = [change(side) if _open_side(each, i) in sides else side for i, side in shape]
        found[each.name] = np.resize(np.concatenate([feed[each.name].reshape(-1) for feed in feeds]), other)
    return found


def _holds(files: tuple[Any, Any], feed: Feed) -> bool | None:
    """Whether both files say the same; None where the first does not take it."""
    try:
        run_session(files[0], [files[0].get_outputs()[0].name], feed)
    except InputError:
        return None
    try:
        return _apart(files, feed) < PARITY
    except InputError:
        return False


def _with_closed(graph: Graph, sides: Collection[str]) -> Graph:
    """The graph with numbers for these sides of its inputs, and nothing said of them in its outputs."""
    shapes = graph.workload.shapes

    def closed(value: Value) -> Value:
        read = shapes[value.name]
        sides_read = [read[i] if _open_side(value, i) in sides else side for i, side in enumerate(value.shape)]
        return replace(value, shape=tuple(sides_read))

    def forgotten(value: Value) -> Value:
        return replace(value, shape=tuple(None if side in sides else side for side in value.shape))

    outputs = tuple((forgotten(value), tensor) for value, tensor in graph.output_values)
    return replace(graph, inputs=tuple(map(closed, graph.input_values)), outputs=outputs)
