"""Rewrites a network that computes in 16-bit floating point as one in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from hw_profiles.onnx_io.external_data import tensors_in
from hw_profiles.onnx_io.graph_edges import subgraphs

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_NAMES_A_TYPE = ("to", "dtype", "output_dtype")


def in_float32(model: Any) -> Any:
    """A copy in which every tensor of 16-bit floating point is float32, inputs and outputs too; the model itself where
    there is none.

    >>> from onnx import helper
    >>> ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["N", 2]) for name in "xy"]
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    >>> wide = in_float32(helper.make_model(graph))
    >>> wide.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    True
    """
    if not _has_halves(model.graph):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _widen(copy.graph)
    return copy


def _has_halves(graph: Any) -> bool:
    values = (*graph.input, *graph.output, *graph.value_info)
    kinds = {value.type.tensor_type.elem_type for value in values}
    kinds |= {tensor.data_type for tensor in (*graph.initializer, *tensors_in(graph.node))}
    kinds |= {attribute.i for node in graph.node for attribute in node.attribute if attribute.name in _NAMES_A_TYPE}
    return not kinds.isdisjoint(HALVES)


def _widen(graph: Any) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _NAMES_A_TYPE and attribute.i in HALVES:
                attribute.i = TensorProto.FLOAT
            for tensor in (attribute.t, *attribute.tensors) if attribute.HasField("t") else attribute.tensors:
                _widen_tensor(tensor)
        for inner in subgraphs(node):
            _widen(inner)


def _widen_tensor(tensor: Any) -> None:
    if tensor.data_type in HALVES:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
