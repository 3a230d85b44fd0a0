"""Reads ONNX's integer operations as the float operations that they stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto

from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import FLOAT32, TensorFormat
from hw_profiles.onnx_io.shapes import Constant, Tensors, element_bits, where

_NOT_OF_ONNX = ("channels_last", "activation", "activation_params")  # attributes of ONNX Runtime's operations
_FLOATS = ("FLOAT", "DOUBLE", "BFLOAT")


@dataclass(frozen=True, slots=True)
class _Integer:
    """The float operation, and the places of its inputs, of the output's zero point and of the weights' scale."""

    kind: str
    inputs: tuple[int, ...]
    zero_point: int | None = None
    weight_scale: int | None = None


_OPERATIONS: Mapping[str, _Integer] = {
    "QLinearConv": _Integer("Conv", (0, 3, 8), 7, 4),
    "QLinearMatMul": _Integer("MatMul", (0, 3), 7, 4),
    "QGemm": _Integer("Gemm", (0, 3, 6), 8, 4),
    "QLinearAdd": _Integer("Add", (0, 3), 7),
    "QLinearMul": _Integer("Mul", (0, 3), 7),
    "QLinearGlobalAveragePool": _Integer("GlobalAveragePool", (0,), 4),
    "QLinearAveragePool": _Integer("AveragePool", (0,), 4),
    "QLinearSigmoid": _Integer("Sigmoid", (0,), 4),
    "QLinearLeakyRelu": _Integer("LeakyRelu", (0,), 4),
    "QLinearSoftmax": _Integer("Softmax", (0,), 4),
    "ConvInteger": _Integer("Conv", (0, 1)),
    "MatMulInteger": _Integer("MatMul", (0, 1)),
    "MatMulIntegerToFloat": _Integer("MatMul", (0, 1), weight_scale=3),
    "DynamicQuantizeMatMul": _Integer("MatMul", (0, 1), weight_scale=2),
    "FusedConv": _Integer("Conv", (0, 1, 2)),  # which is float, with its function inside
    "FusedGemm": _Integer("Gemm", (0, 1, 2)),
    "DynamicQuantizeLSTM": _Integer("LSTM", tuple(range(8)), weight_scale=8),
}


def as_float(node: Any, tensors: Tensors) -> tuple[Any, int | None]:
    """The node as a float one and the integer type that its output is stored in; any other node as it is, and None.

    Raises:
        InputError: one that reads images with the channels last.

    >>> from onnx import ModelProto
    >>> from onnx.helper import make_node
    >>> node = make_node("QLinearSigmoid", ["x", "s", "z", "t", "u"], ["y"], domain="com.microsoft")
    >>> as_float(node, Tensors(ModelProto()))[0].op_type
    'Sigmoid'
    """
    inputs = list(node.input)
    if node.op_type == "QLinearConcat":
        return _float(node, "Concat", inputs[2::3]), _type(tensors, inputs, 1)
    known = _OPERATIONS.get(node.op_type)
    if known is None:
        if node.op_type == "Add":
            _read_bias_as_float(tensors, inputs)
        return node, None
    kept = [inputs[i] for i in known.inputs if i < len(inputs)]
    for name in kept:
        _read_as_float(tensors, name, inputs[known.weight_scale] if known.weight_scale else "")
        if tensors.types.get(name) in (TensorProto.UINT8, TensorProto.INT8):  # of DynamicQuantizeLinear
            tensors.types[name] = TensorProto.FLOAT
    return _float(node, known.kind, kept), _type(tensors, inputs, known.zero_point)


def format_of(data_type: int) -> TensorFormat:
    """How ONNX's type stores an element.

    >>> format_of(TensorProto.UINT4).bits
    4
    """
    if data_type == TensorProto.FLOAT:
        return FLOAT32
    name = TensorProto.DataType.Name(data_type)
    floating = name.startswith(_FLOATS)
    signed = floating or not name.startswith(("UINT", "BOOL", "STRING"))
    return TensorFormat(bits=min(element_bits(data_type), 64), floating=floating, signed=signed)


def _float(node: Any, kind: str, inputs: list[str]) -> Any:
    if any(each.name == "channels_last" and each.i for each in node.attribute):
        raise InputError(
            f"{where(node)}: images with the channels last, as ONNX Runtime makes them when it stores its optimized "
            "graph, are not followed: use the file that it was made of"
        )
    attributes = [a for a in node.attribute if a.name not in _NOT_OF_ONNX]
    result = onnx.NodeProto(op_type=kind, name=node.name, input=inputs, output=node.output)
    result.attribute.extend(attributes)
    return result


def _type(tensors: Tensors, inputs: list[str], zero_point: int | None) -> int | None:
    if zero_point is None:
        return None
    name = inputs[zero_point] if zero_point < len(inputs) else ""
    constant = tensors.constants.get(name)
    return TensorProto.UINT8 if constant is None else constant.data_type


def _read_bias_as_float(tensors: Tensors, inputs: list[str]) -> None:
    """A bias of 32 bits, constant or computed, that is added to the sums of ConvInteger, which are read as floats."""
    if any(tensors.types.get(name) == TensorProto.FLOAT for name in inputs):
        for name in inputs:
            held = tensors.constants.get(name)
            if held is not None and held.data_type == TensorProto.INT32:
                _read_as_float(tensors, name, "")
            elif tensors.types.get(name) == TensorProto.INT32:
                tensors.types[name] = TensorProto.FLOAT


def _read_as_float(tensors: Tensors, name: str, scale: str) -> None:
    held, scales = tensors.constants.get(name), tensors.constants.get(scale)
    if held is not None:
        per_channel = scales is not None and math.prod(scales.shape) > 1
        tensors.constants[name] = Constant(held.shape, held.data_type, None, per_channel, TensorProto.FLOAT)
