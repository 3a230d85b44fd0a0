"""Reads a QDQ ONNX file as the layers of a C99 program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from compress.c99.layers import Network, ProgramLayer, Stored, Table, Tensor, merged
from compress.c99.lookup_tables import POINTWISE
from compress.c99.qdq_graph import Graph, TensorQuantization, place
from compress.c99.reading.arena_plan import placed
from compress.c99.reading.attention import instance_normalization, layer_normalization, matrix_product, softmax
from compress.c99.reading.builder import Builder, Handler, unknown, wanted_quantizations
from compress.c99.reading.elementwise import pointwise
from compress.c99.reading.float_input import quantize_input
from compress.c99.reading.movement import COMMUTING, MOVES, concatenated, moved
from compress.c99.reading.resizing import resized
from compress.c99.reading.turned_weights import turn_weights
from compress.c99.reading.values import (
    Draft,
    Value,
    as_image,
    channels_last,
    program_image,
    program_index,
    row_by_row,
)
from compress.c99.reading.weighted import convolution, linear, transposed_convolution
from compress.c99.reading.windows import pooled, reduced
from compress.data.preprocessing import METADATA_KEY, Preprocessing
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.reader import read_metadata
from hw_profiles.onnx_io.rewrites.normal_form import normal_form
from hw_profiles.onnx_io.untrusted_file import load_model, shown

_MOST_BYTES = 2**31 - 1
_INTEGERS = {TensorProto.INT8: 0, TensorProto.UINT8: 128}


def read_network(source: Path | bytes) -> Network:
    """The integers, scales and memory of a file whose tensors are 8-bit between QuantizeLinear and DequantizeLinear.

    Its input and output may be integers themselves, as TensorFlow Lite has them. Unsigned integers are shifted by 128,
    which changes nothing. Images lie with the channels last; what only moves numbers is followed, and copied only where
    it does not cancel.

    Raises:
        InputError: an operation or a format that no kernel is known for; the node is named, and what can be done.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from hw_profiles.network.quantization import fixed_quantization
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> network = read_network(write_onnx(w, quantization=fixed_quantization(w)))
    >>> len(network.layers), network.arena_bytes
    (14, 49152)
    """
    model = normal_form(load_model(source), batch=1)
    if len(model.graph.output) != 1 or len(model.graph.input) != 1:
        ends = f"{len(model.graph.input)} and {len(model.graph.output)}"
        raise InputError(f"a C99 program has one input and one output, the file has {ends}")
    turn_weights(model)
    quantize_input(model)
    graph = Graph(model)
    _check_weights(graph)
    record = read_metadata(source).get(METADATA_KEY)
    return _network(graph, None if record is None else Preprocessing.from_json(record))


def _check_weights(graph: Graph) -> None:
    """Where some operations have weights in integers all must, unlike those of a mixed network."""
    nodes = [node for node in graph.model.graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")]
    weighted = [node for node in nodes if any(graph.constant(name) for name in node.input[:2])]
    in_float = [node for node in weighted if graph.float_weight(node)]
    if 0 < len(in_float) < len(weighted):
        raise InputError(
            f"{place(in_float[0])}: the C99 export supports int8 only, but {len(in_float)} of "
            f"{len(weighted)} operations have float weights; quantize them, or use quantization-aware training (qat)"
        )


def _network(graph: Graph, preprocessing: Preprocessing | None) -> Network:
    given, wanted = graph.model.graph.input[0], graph.model.graph.output[0].name
    builder = Builder(graph, wanted_quantizations(graph, COMMUTING), given.name)
    start = _input(graph, given)
    builder.values[given.name] = start
    if isinstance(start.source, Tensor):
        builder.input = start.source
    for node in graph.model.graph.node:
        _add(builder, node)
    end = _output(builder, wanted)
    if builder.input is None or not builder.layers or not isinstance(end.source, Tensor):
        raise InputError("a C99 program must have an operation on its quantized input, the file has none")
    used = _needed(builder.layers, end.source)
    plan = placed(_with_tables(used, end.source), builder.input, end.source)
    if plan.arena_bytes > _MOST_BYTES:
        raise InputError(f"a C99 program has an arena of at most {_MOST_BYTES} bytes, this needs {plan.arena_bytes}")
    return Network(
        input=builder.input,
        output=end.source,
        input_offset=plan.input_offset,
        output_offset=plan.output_offset,
        layers=plan.layers,
        arena_bytes=plan.arena_bytes,
        input_values=Stored(name=given.name, index=start.index, shift=builder.input.quantization.shift),
        output_values=Stored(name=wanted, index=end.index, shift=end.source.quantization.shift),
        integer_ends=(isinstance(start.source, Tensor), graph.in_integers(wanted)),
        preprocessing=preprocessing,
        stored=builder.stored,
    )


def _input(graph: Graph, given: Any) -> Value:
    """The network's input: images with the channels last, unless the file itself turns them."""
    kind = given.type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    if not shape or min(shape) < 1:
        raise InputError(
            f"input {shown(given.name)} must have a static shape, got {shape}; export the model again with one"
        )
    images = len(shape) == 4 and shape[0] == 1
    turned = images and all(node.op_type in MOVES for node in _computing(graph, given.name))
    index = row_by_row(shape) if turned or not images else channels_last(shape)
    image = program_image((1, shape[3], *shape[1:3])) if turned else program_image(shape)
    if kind.elem_type in _INTEGERS:
        return Value(
            source=Tensor(name=given.name, shape=image, quantization=_quantization_of_input(graph, given.name)),
            index=index,
        )

    def make(*_: Any) -> Any:
        raise AssertionError("an input has no steps")

    return Value(source=Draft(node=None, inputs=(), shape=image, make=make), index=index)


def _computing(graph: Graph, name: str) -> list[Any]:
    """The nodes that read a tensor, after those that only quantize it."""
    found = []
    for node in graph.consumers.get(name, []):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Identity"):
            found.extend(_computing(graph, node.output[0]))
        else:
            found.append(node)
    return found


def _quantization_of_input(graph: Graph, name: str) -> TensorQuantization:
    """What the first DequantizeLinear says of an input of integers."""
    waiting = [name]
    while waiting:
        for node in graph.consumers.get(waiting.pop(), []):
            if node.op_type == "DequantizeLinear":
                return graph.quantization(node)
            waiting.extend(node.output[:1])
    raise InputError(f"input {shown(name)}: must be read by a DequantizeLinear, which says its scale, and is not")


def _output(builder: Builder, name: str) -> Value:
    """The network's output, as it lies where that is an order that can be told, else row by row."""
    if name not in builder.values:
        raise InputError(f"output {shown(name)} does not depend on the input")
    tensor, value = builder.integers(name)
    for index in (row_by_row(value.shape), program_index(value.shape)):
        if np.array_equal(index, value.index) and value.index.size == tensor.size:
            return value
    copy = builder.arranged(builder.graph.producers[name], tensor, value.index, as_image(value.shape))
    return Value(source=copy, index=row_by_row(value.shape))


def _add(builder: Builder, node: Any) -> None:
    if builder.constant(node.output[0]):
        return
    if node.op_type == "QuantizeLinear":
        to = builder.graph.quantization(node)
        value = builder.quantized(builder.value(node), to, node.input[0])
        assert isinstance(value.source, Tensor)
        if value.complete:
            builder.stored.setdefault(value.source.name, Stored(name=node.output[0], index=value.index, shift=to.shift))
        builder.values[node.output[0]] = value
    elif node.op_type == "DequantizeLinear":
        _, value = builder.held(node)
        builder.values[node.output[0]] = _said_again(value, builder.graph.quantization(node))
    elif node.domain not in ("", "ai.onnx") or node.op_type not in _HANDLERS:
        raise InputError(unknown(node))
    else:
        _HANDLERS[node.op_type](builder, node)


def _said_again(value: Value, said: TensorQuantization) -> Value:
    """The integers as DequantizeLinear reads them, which may be otherwise than they were made."""
    assert isinstance(value.source, Tensor)
    return Value(source=replace(value.source, quantization=said), index=value.index)


def _needed(layers: Sequence[ProgramLayer], output: Tensor) -> list[ProgramLayer]:
    """The layers that the output depends on."""
    wanted, kept = {output.name}, []
    for layer in reversed(layers):
        if layer.output.name in wanted:
            kept.append(layer)
            wanted.update(t.name for t in layer.inputs)
    return kept[::-1]


def _with_tables(layers: Sequence[ProgramLayer], output: Tensor) -> list[ProgramLayer]:
    """Tables alone as further steps of the layers before them, where nothing else reads those."""
    readers = Counter(t.name for layer in layers for t in layer.inputs)
    done: dict[str, ProgramLayer] = {}
    for layer in layers:
        before = done.get(layer.inputs[0].name)
        alone = all(isinstance(step, Table) for step in layer.steps) and readers[layer.inputs[0].name] == 1
        if before is not None and alone and before.output.name != output.name:
            del done[before.output.name]
            joined = replace(layer.output, shape=before.output.shape)
            layer = replace(before, name=layer.name, output=joined, steps=(*before.steps, *layer.steps))  # noqa: PLW2901
        done[layer.output.name] = replace(layer, steps=merged(layer.steps))
    return list(done.values())


_HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(sorted(POINTWISE), pointwise),
    **dict.fromkeys(("BatchNormalization", "Sum"), pointwise),
    **dict.fromkeys(sorted(MOVES), moved),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "GlobalAveragePool", "GlobalMaxPool"), reduced),
    **dict.fromkeys(("AveragePool", "MaxPool"), pooled),
    **dict.fromkeys(("Resize", "Upsample"), resized),
    "Gemm": linear,
    "MatMul": matrix_product,
    "LayerNormalization": layer_normalization,
    "InstanceNormalization": instance_normalization,
    "Concat": concatenated,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Softmax": softmax,
}
