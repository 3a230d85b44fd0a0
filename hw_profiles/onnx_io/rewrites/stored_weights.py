"""The weights of an ONNX file as float numbers, of integer files too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.network.dead_channels import StoredWeights
from hw_profiles.network.workload import Op, Workload

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_READABLE = {
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32
}  # fmt: skip
_FEWEST_OF_INTEGERS = 8  # inputs of a QLinearConv, of which the ninth is the bias
_LIMITS = {TensorProto.UINT8: (0, 255), TensorProto.INT8: (-128, 127)}

Array = NDArray[np.float32]


def stored_weights(model: Any, workload: Workload) -> StoredWeights:
    """What a file holds for the convolutions and linear layers of its workload; what cannot be told is left out."""
    file = _File(model)
    arrays: dict[str, Array] = {}
    ranges: dict[str, tuple[float, float]] = {}
    for op in workload.ops:
        node = file.makers.get(op.name)
        if node is None:
            continue
        limits = file.range_of(node)
        if limits is not None:
            ranges[op.name] = limits
        if op.kind in ("conv", "linear") and op.stores_weights:
            arrays |= file.weights(op, node)
    return StoredWeights(arrays=arrays, ranges=ranges)


class _File:
    def __init__(self, model: Any) -> None:
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.makers = {name: node for node in model.graph.node for name in node.output if name}
        self.readers: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def weights(self, op: Op, node: Any) -> dict[str, Array]:
        """The weight and the bias of an operation, as its workload has them."""
        if node.op_type == "QLinearConv":
            weight, bias = self._of_integers(node)
        elif node.op_type in _WEIGHTED and len(node.input) > 1:
            weight = self._array(node.input[1])
            bias = self._array(node.input[2]) if len(node.input) > 2 else None
        else:
            return {}
        if weight is None:
            return {}
        if op.kind == "linear" and not _reads_rows(node):
            weight = weight.T
        if weight.shape != op.weight_shape:
            return {}
        usable = bias is not None and bias.shape == (op.out_channels,)
        return {op.weight: weight, **({op.bias_name: bias} if usable and bias is not None else {})}

    def range_of(self, node: Any) -> tuple[float, float] | None:
        """What the output of a node can be, where it is held in 8 bits alone."""
        if node.op_type == "QLinearConv":
            return self._limits(*node.input[6:8]) if len(node.input) >= _FEWEST_OF_INTEGERS else None
        readers = self.readers.get(node.output[0], [])
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear" or len(readers[0].input) < 3:
            return None
        return self._limits(*readers[0].input[1:3])

    def _limits(self, scale_name: str, zero_point_name: str) -> tuple[float, float] | None:
        scale, zero_point = self._number(scale_name), self.tensors.get(zero_point_name)
        if (
            scale is None
            or zero_point is None
            or zero_point.data_type not in _LIMITS
            or math.prod(zero_point.dims) != 1
        ):
            return None
        zero = int(numpy_helper.to_array(zero_point).item())
        low, high = ((limit - zero) * scale for limit in _LIMITS[zero_point.data_type])
        return low, high

    def _of_integers(self, node: Any) -> tuple[Array | None, Array | None]:
        names = list(node.input)
        if len(names) < _FEWEST_OF_INTEGERS:
            return None, None
        weight = self._widened(*names[3:6], axis=0)
        scales, read = self._array(names[4]), self._number(names[1])
        bias = self._array(names[8]) if len(names) > _FEWEST_OF_INTEGERS else None
        if bias is None or scales is None or read is None or scales.size not in (1, bias.size):
            return weight, None
        return weight, np.asarray(bias * scales * read, np.float32)

    def _array(self, name: str) -> Array | None:
        """A constant of the file as float numbers; of integers that are widened the numbers that they stand for."""
        tensor = self.tensors.get(name)
        if tensor is not None:
            return numpy_helper.to_array(tensor).astype(np.float32) if tensor.data_type in _READABLE else None
        node = self.makers.get(name)
        if node is None or node.op_type != "DequantizeLinear" or not 2 <= len(node.input) <= 3:
            return None
        axis = next((helper.get_attribute_value(each) for each in node.attribute if each.name == "axis"), 1)
        blocked = any(each.name == "block_size" and each.i for each in node.attribute)
        return None if blocked else self._widened(*node.input, axis=axis)

    def _widened(self, name: str, scale_name: str, zero_name: str = "", *, axis: int) -> Array | None:
        held = self.tensors.get(name)
        scales = self.tensors.get(scale_name)
        if held is None or scales is None or held.data_type not in _READABLE:
            return None
        array, scale = numpy_helper.to_array(held).astype(np.float32), numpy_helper.to_array(scales).astype(np.float32)
        zero = self.tensors.get(zero_name)
        zeros = np.zeros_like(scale) if zero is None else numpy_helper.to_array(zero).astype(np.float32)
        if zeros.size not in (1, scale.size):
            return None
        if scale.size > 1:
            if scale.ndim != 1 or not -array.ndim <= axis < array.ndim or array.shape[axis] != scale.size:
                return None
            sides = [1] * array.ndim
            sides[axis] = scale.size
            scale, zeros = scale.reshape(sides), np.broadcast_to(zeros.reshape(-1), (scale.size,)).reshape(sides)
        return np.asarray((array - zeros) * scale, np.float32)

    def _number(self, name: str) -> float | None:
        array = self._array(name)
        return float(array.item()) if array is not None and array.size == 1 else None


def _reads_rows(node: Any) -> bool:
    """Whether the weight of a linear layer stands as (out, in)."""
    return any(each.name == "transB" and each.i for each in node.attribute)
