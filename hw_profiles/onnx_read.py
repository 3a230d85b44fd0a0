"""The Workload of an ONNX file: float32, or int8 with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import onnx
from onnx import TensorProto, helper

from hw_profiles.formats import FLOAT32, TensorFormat
from hw_profiles.workload import Shape, Workload, WorkloadBuilder

_BITS: dict[int, tuple[int, bool]] = {
    TensorProto.INT8: (8, True),
    TensorProto.UINT8: (8, False),
    TensorProto.INT32: (32, True),
}
_GATED = {"Sigmoid": "silu", "HardSigmoid": "hard_swish"}
_LARGEST_FILE = 2 * 1024**3


def read_onnx(source: Path | bytes) -> Workload:
    """The workload of a file or its bytes, batch 1. Shapes are worked out here; no operation is run, no weight is read.

    Raises:
        ValueError: not an ONNX file, weights outside it, a side of the input that has no size, or an operation that
            is not known; each is named.
    """
    model = _load(source)
    reader = _Reader(model.graph)
    for node in model.graph.node:
        reader.add(node)
    return reader.workload()


def read_metadata(source: Path | bytes) -> dict[str, str]:
    """The strings that travel with the file."""
    return {p.key: p.value for p in _load(source).metadata_props}


def _load(source: Path | bytes) -> Any:
    name = "the given bytes" if isinstance(source, bytes) else str(source)
    try:
        if isinstance(source, Path) and source.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"{name}: an ONNX file must be at most 2 GiB")
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise ValueError(f"{name}: cannot be read ({error.strerror})") from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise ValueError(f"{name}: not an ONNX file ({type(error).__name__})") from None
    if not model.graph.input or not model.graph.output:
        raise ValueError(f"{name}: not an ONNX model with an input and an output")
    outside = [t.name for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    if outside:
        raise ValueError(f"{name}: weights must be inside the file, {outside[0]} and {len(outside) - 1} more are not")
    return model


class _Reader:
    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.constants: dict[str, Shape] = {t.name: tuple(t.dims) for t in graph.initializer}
        self.constant_types: dict[str, int] = {t.name: t.data_type for t in graph.initializer}
        self.values = {t.name: t for t in graph.initializer if math.prod(t.dims) <= 16}
        inputs = [i for i in graph.input if i.name not in self.constants]
        if len(inputs) != 1:
            raise ValueError(f"a classifier has one input, got {len(inputs)}")
        self.input = inputs[0].name
        self.builder = WorkloadBuilder(self.input, _input_shape(inputs[0]))
        self.alias: dict[str, str] = {self.input: self.input}
        self.formats: dict[str, TensorFormat] = {}
        self.gate_of: dict[str, tuple[str, str]] = {}
        self.zeros_around: dict[str, tuple[int, int, int, int]] = {}
        self.own_gates = _own_gates(graph)

    def add(self, node: Any) -> None:
        if node.op_type not in self._READERS:
            raise ValueError(f"node {node.name or node.output[0]}: the operation {node.op_type} is not known")
        self._READERS[node.op_type](self, node)

    def workload(self) -> Workload:
        built = self.builder.build(self.alias[self.graph.output[0].name])
        return Workload(built.input, built.output, built.ops, built.shapes, MappingProxyType(self.formats))

    def _made(self, node: Any, name: str) -> None:
        self.alias[node.output[0]] = name

    def _x(self, node: Any, i: int = 0) -> str:
        name = node.input[i]
        if name not in self.alias:
            raise ValueError(f"node {node.name}: input {name!r} must be made by an earlier node")
        return self.alias[name]

    def _conv(self, node: Any) -> None:
        attributes = _attributes(node)
        weight = self.constants[node.input[1]]
        if len(weight) != 4 or weight[2] != weight[3] or len(set(attributes.get("strides", [1]))) != 1:
            raise ValueError(f"node {node.name}: only square two-dimensional convolutions are known, got {weight}")
        if set(attributes.get("dilations", [1])) != {1}:
            raise ValueError(f"node {node.name}: dilated convolutions are not known")
        x = self._x(node)
        padding = _padding(attributes, self.builder.shapes[x], weight[2])
        top, left, bottom, right = self.zeros_around.get(node.input[0], (0, 0, 0, 0))
        padding = (padding[0] + top, padding[1] + left, padding[2] + bottom, padding[3] + right)
        bias = len(node.input) > 2
        name = self.builder.conv(
            node.output[0],
            x,
            weight[0],
            kernel_size=weight[2],
            stride=attributes.get("strides", [1])[0],
            padding=padding,
            groups=attributes.get("group", 1),
            bias=bias,
        )
        self._weight_formats(node, name, bias)
        self._made(node, name)

    def _gemm(self, node: Any) -> None:
        attributes = _attributes(node)
        shape = self.constants.get(node.input[1])
        if shape is None:
            raise ValueError(f"node {node.name}: Gemm must have constant weights")
        out = shape[0] if attributes.get("transB", 0) else shape[1]
        bias = len(node.input) > 2
        name = self.builder.linear(node.output[0], self._x(node), out, bias=bias)
        self._weight_formats(node, name, bias)
        self._made(node, name)

    def _matmul(self, node: Any) -> None:
        if node.input[1] in self.constants:
            name = self.builder.linear(node.output[0], self._x(node), self.constants[node.input[1]][1], bias=False)
            self._weight_formats(node, name, bias=False)
        else:
            name = self.builder.matmul(node.output[0], self._x(node), self._x(node, 1))
        self._made(node, name)

    def _weight_formats(self, node: Any, name: str, bias: bool) -> None:
        for source, target in zip(node.input[1:], (f"{name}.weight", f"{name}.bias"), strict=False):
            if source in self.formats and (bias or target.endswith("weight")):
                self.formats[target] = self.formats.pop(source)

    def _binary(self, node: Any) -> None:
        a, b = node.input
        if a in self.gate_of or b in self.gate_of:
            x, function = self.gate_of.get(a) or self.gate_of[b]
            self._made(node, self.builder.activation(node.output[0], x, function))
            return
        if a in self.constants or b in self.constants:
            raise ValueError(f"node {node.name}: {node.op_type} with a constant is not known")
        self._made(node, self.builder.binary(node.output[0], node.op_type.lower(), self._x(node), self._x(node, 1)))

    def _activation(self, node: Any) -> None:
        x = self._x(node)
        if node.output[0] in self.own_gates:
            self.gate_of[node.output[0]] = (x, _GATED[node.op_type])
            return
        function = {
            "Relu": "relu",
            "Clip": "relu6",
            "HardSwish": "hard_swish",
            "HardSigmoid": "hard_sigmoid",
            "Sigmoid": "sigmoid",
        }[node.op_type]
        self._made(node, self.builder.activation(node.output[0], x, function))

    def _global_pool(self, node: Any) -> None:
        name = self.builder.global_avg_pool(node.output[0], self._x(node))
        self._made(node, name)

    def _reduce_mean(self, node: Any) -> None:
        attributes = _attributes(node)
        axes = attributes.get("axes") or self._integers(node.input[1])
        if [a % 4 for a in axes] != [2, 3]:
            raise ValueError(f"node {node.name}: ReduceMean is known over height and width only, got axes {axes}")
        if attributes.get("keepdims", 1):
            self._global_pool(node)
            return
        pooled = self.builder.global_avg_pool(f"{node.output[0]}.pool", self._x(node))
        self._made(node, self.builder.flatten(node.output[0], pooled))

    def _pool(self, node: Any) -> None:
        attributes = _attributes(node)
        kernel, stride = attributes["kernel_shape"], attributes.get("strides", [1, 1])
        if len(set(kernel)) != 1 or len(set(stride)) != 1:
            raise ValueError(f"node {node.name}: only square pooling windows are known, got {kernel}")
        x = self._x(node)
        name = self.builder.pool(
            node.output[0],
            "avg_pool" if node.op_type == "AveragePool" else "max_pool",
            x,
            kernel_size=kernel[0],
            stride=stride[0],
            padding=_padding(attributes, self.builder.shapes[x], kernel[0]),
            ceil=bool(attributes.get("ceil_mode", 0)),
        )
        self._made(node, name)

    def _flatten(self, node: Any) -> None:
        x = self._x(node)
        shape = self._integers(node.input[1]) if node.op_type == "Reshape" else [0, -1]
        if len(shape) != 2 or shape[1] not in (-1, math.prod(self.builder.shapes[x])):
            raise ValueError(f"node {node.name}: only a Reshape to (batch, all) is known, got {shape}")
        self._made(node, self.builder.flatten(node.output[0], x))

    def _quantize(self, node: Any) -> None:
        self.alias[node.output[0]] = x = self._x(node)
        self.formats[x] = _format(self.constant_types.get(node.input[2], TensorProto.UINT8), per_channel=False)

    def _dequantize(self, node: Any) -> None:
        source, output = node.input[0], node.output[0]
        if source in self.constants:
            self.constants[output] = self.constants[source]
            per_channel = math.prod(self.constants.get(node.input[1], ())) > 1
            self.formats[output] = _format(self.constant_types[source], per_channel=per_channel)
        else:
            self.alias[output] = self._x(node)

    def _pad(self, node: Any) -> None:
        """Zeros around an image belong to the convolution that reads it."""
        pads = self._integers(node.input[1])
        mode = _attributes(node).get("mode", b"constant")
        only_zeros = len(node.input) < 3 or not node.input[2] or not any(self._numbers(node.input[2]))
        if len(pads) != 8 or any(pads[:2] + pads[4:6]) or mode != b"constant" or not only_zeros:
            raise ValueError(f"node {node.name}: Pad is known with zeros around height and width only")
        readers = [other for other in self.graph.node if node.output[0] in other.input]
        if any(other.op_type != "Conv" for other in readers):
            raise ValueError(f"node {node.name}: Pad is known before a Conv only")
        self.zeros_around[node.output[0]] = (pads[2], pads[3], pads[6], pads[7])
        self.alias[node.output[0]] = self._x(node)

    def _skip(self, node: Any) -> None:
        self.alias[node.output[0]] = self._x(node)

    def _constant(self, node: Any) -> None:
        tensor = _attributes(node).get("value")
        if tensor is None:
            raise ValueError(f"node {node.name}: only tensors are known as constants")
        self.constants[node.output[0]] = tuple(tensor.dims)
        self.constant_types[node.output[0]] = tensor.data_type
        self.values[node.output[0]] = tensor

    def _integers(self, name: str) -> list[int]:
        return [int(value) for value in self._numbers(name)]

    def _numbers(self, name: str) -> list[float]:
        if name not in self.values:
            raise ValueError(f"{name} must be a small constant")
        return [float(value) for value in onnx.numpy_helper.to_array(self.values[name]).reshape(-1)]

    _READERS: ClassVar[dict[str, Callable[[_Reader, Any], None]]] = {
        "Conv": _conv,
        "Gemm": _gemm,
        "MatMul": _matmul,
        "Add": _binary,
        "Mul": _binary,
        "Relu": _activation,
        "Clip": _activation,
        "HardSwish": _activation,
        "HardSigmoid": _activation,
        "Sigmoid": _activation,
        "GlobalAveragePool": _global_pool,
        "ReduceMean": _reduce_mean,
        "AveragePool": _pool,
        "MaxPool": _pool,
        "Flatten": _flatten,
        "Reshape": _flatten,
        "QuantizeLinear": _quantize,
        "DequantizeLinear": _dequantize,
        "Pad": _pad,
        "Identity": _skip,
        "Dropout": _skip,
        "Constant": _constant,
    }


def _input_shape(value: Any) -> Shape:
    sides = [d.dim_value if d.HasField("dim_value") else 0 for d in value.type.tensor_type.shape.dim]
    if len(sides) < 2 or any(side < 1 for side in sides[1:]):
        raise ValueError(f"input {value.name} must have fixed sizes after the batch, got {sides}")
    return (1, *sides[1:])


def _attributes(node: Any) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _padding(attributes: dict[str, Any], shape: Shape, kernel_size: int) -> tuple[int, int, int, int]:
    mode = attributes.get("auto_pad", b"NOTSET")
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        stride = attributes.get("strides", [1, 1])[0]
        totals = [max((-(-side // stride) - 1) * stride + kernel_size - side, 0) for side in shape[2:]]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        first, second = (small, large) if mode == b"SAME_UPPER" else (large, small)
        return (first[0], first[1], second[0], second[1])
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    return (top, left, bottom, right)


def _own_gates(graph: Any) -> set[str]:
    """Outputs of the (hard) sigmoids that only multiply their own input: together they are one SiLU or hard-swish."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = set()
    for node in graph.node:
        if node.op_type in _GATED:
            after = readers.get(node.output[0], [])
            if len(after) == 1 and after[0].op_type == "Mul" and node.input[0] in after[0].input:
                found.add(node.output[0])
    return found


def _format(data_type: int, *, per_channel: bool) -> TensorFormat:
    if data_type == TensorProto.FLOAT:
        return FLOAT32
    if data_type not in _BITS:
        raise ValueError(f"the integer type {TensorProto.DataType.Name(data_type)} is not known")
    bits, signed = _BITS[data_type]
    return TensorFormat(bits=bits, signed=signed, per_channel=per_channel)
