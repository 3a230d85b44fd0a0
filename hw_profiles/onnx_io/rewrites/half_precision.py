"""Rewrites a network that computes in 16-bit floating point as one in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from hw_profiles.onnx_io.external_data import all_tensors
from hw_profiles.onnx_io.graph_edges import subgraphs

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_NAMES_A_TYPE = ("to", "dtype", "output_dtype")


def in_float32(model: Any) -> Any:
    """A copy in which every tensor of 16-bit floating point is float32, inputs and outputs too, also in functions of
    the file; the model itself where there is none.

    >>> from onnx import helper
    >>> ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["N", 2]) for name in "xy"]
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    >>> wide = in_float32(helper.make_model(graph))
    >>> wide.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    True
    """
    if not _has_halves(model):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in _values(copy):
        if value.type.tensor_type.elem_type in HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for attribute in _types(copy):
        if attribute.i in HALVES:
            attribute.i = TensorProto.FLOAT
    for tensor in all_tensors(copy):
        if tensor.data_type in HALVES:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    return copy


def _has_halves(model: Any) -> bool:
    kinds = {value.type.tensor_type.elem_type for value in _values(model)}
    kinds |= {tensor.data_type for tensor in all_tensors(model)}
    kinds |= {attribute.i for attribute in _types(model)}
    return not kinds.isdisjoint(HALVES)


def _values(model: Any) -> Iterator[Any]:
    """What the model says of its tensors."""
    for graph in (model.graph, *(inner for node in _nodes(model) for inner in subgraphs(node))):
        yield from (*graph.input, *graph.output, *graph.value_info)
    for function in model.functions:
        yield from function.value_info


def _types(model: Any) -> Iterator[Any]:
    """The attributes that name a type."""
    for node in _nodes(model):
        yield from (attribute for attribute in node.attribute if attribute.name in _NAMES_A_TYPE)


def _nodes(model: Any) -> Iterator[Any]:
    """All nodes, also of subgraphs and functions."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(inner for graph in subgraphs(node) for inner in graph.node)
