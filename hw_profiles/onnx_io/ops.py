"""Converts one ONNX node into an Op."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hw_profiles.network.workload import Op, Pair, Shape
from hw_profiles.onnx_io.shapes import Tensors

Four = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Node:
    """What is needed of a node: ``inputs`` by their names in the file, ``x`` those that depend on the image by the
    names of the operations, ``shape`` of the first output, after which the operation is called."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    x: tuple[str, ...]
    shape: Shape
    attributes: Mapping[str, Any]
    tensors: Tensors

    def input_shape(self, i: int) -> Shape:
        """Shape of an input."""
        return self.tensors.shape(self.inputs[i])

    def constant(self, i: int) -> bool:
        """Whether the input is there and does not depend on the image."""
        return i < len(self.inputs) and self.inputs[i] in self.tensors.constants

    def axes(self) -> list[int]:
        """The axes of a reduction, counted from the front; all where none are named."""
        rank = len(self.input_shape(0))
        given = self.attributes.get("axes")
        if given is None and len(self.inputs) > 1:
            given = self.tensors.integers(self.inputs[1])
        return sorted(a % rank for a in given) if given else list(range(rank))


def read_op(node: Node) -> Op:
    """The operation that a node is; of kind ``other`` where nobody knows it.

    >>> from onnx import ModelProto
    >>> read_op(Node("y", "Whirl", ("x",), ("x",), (1, 3), {}, Tensors(ModelProto()))).kind
    'other'
    """
    reader = _READERS.get(node.kind)
    if reader is not None:
        return reader(node)
    if node.kind in _FUNCTIONS:
        return Op(node.name, "activation", node.x, function=_FUNCTIONS[node.kind])
    if node.kind in _MOVES:
        return Op(node.name, _MOVES[node.kind], node.x, weight_shape=_constant_part(node))
    if node.kind.startswith("Reduce"):
        return _reduce(node)
    return Op(node.name, "other", node.x, function=node.kind)


def padding_of(attributes: Mapping[str, Any], dims: Shape, kernel: Sequence[int]) -> Four:
    """Top, left, bottom, right of a window that slides over ``dims``."""
    strides = attributes.get("strides") or [1] * len(kernel)
    dilations = attributes.get("dilations") or [1] * len(kernel)
    mode = attributes.get("auto_pad", b"NOTSET")
    if mode not in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = [0] * 2 * len(kernel) if mode == b"VALID" else attributes.get("pads") or [0] * 2 * len(kernel)
        return _four(pads[: len(kernel)], pads[len(kernel) :])
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    totals = [
        max((-(-side // step) - 1) * step + k - side, 0) for side, step, k in zip(dims, strides, reach, strict=True)
    ]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return _four(small, large) if mode == b"SAME_UPPER" else _four(large, small)


def _conv(node: Node) -> Op:
    weight, attributes = node.input_shape(1), node.attributes
    kernel = weight[2:]
    return Op(
        node.name,
        "conv_transpose" if node.kind == "ConvTranspose" else "conv",
        node.x,
        weight,
        len(node.inputs) > 2 and bool(node.inputs[2]),
        _pair(attributes.get("strides", ())),
        padding_of(attributes, node.input_shape(0)[2:], kernel),
        attributes.get("group", 1),
        _pair(kernel),
        _pair(attributes.get("dilations", ())),
    )


def _gemm(node: Node) -> Op:
    if not node.constant(1):
        return Op(node.name, "matmul", node.x[:2])
    shape = node.input_shape(1)
    weight = shape if node.attributes.get("transB", 0) else shape[::-1]
    return Op(node.name, "linear", node.x, weight, bias=node.constant(2))


def _matmul(node: Node) -> Op:
    for i, order in ((1, -1), (0, 1)):
        if node.constant(i):
            shape = node.input_shape(i)
            if len(shape) == 2:
                return Op(node.name, "linear", node.x, shape[::order])
            return Op(node.name, "matmul", node.x, (*shape[:-2], *shape[-2:][::-order]))
    return Op(node.name, "matmul", node.x)


def _binary(node: Node) -> Op:
    kind, function = _BINARY[node.kind]
    if node.kind == "Max" and _is_zero_and_a_tensor(node):
        return Op(node.name, "activation", node.x, function="relu")
    return Op(node.name, kind, node.x, _constant_part(node), function=function)


def _is_zero_and_a_tensor(node: Node) -> bool:
    """Whether one of two inputs is the number 0, and the other as large as what is made."""
    if len(node.inputs) != 2 or len(node.x) != 1:
        return False
    zero = int(node.constant(1))
    return node.tensors.numbers(node.inputs[zero]) == [0.0] and node.input_shape(1 - zero) == node.shape


def _power(node: Node) -> Op:
    function = "pow" if node.constant(1) else "other"
    return Op(node.name, "activation" if function == "pow" else "other", node.x, function="pow")


def _clip(node: Node) -> Op:
    limits = [_limit(node, i, key) for i, key in ((1, "min"), (2, "max"))]
    function = {(0.0, 6.0): "relu6", (0.0, math.inf): "relu"}.get((limits[0], limits[1]), "clip")
    return Op(node.name, "activation", node.x, function=function)


def _limit(node: Node, i: int, key: str) -> float:
    if len(node.inputs) > i and node.inputs[i]:
        values = node.tensors.numbers(node.inputs[i])
        return values[0] if values else math.nan
    return float(node.attributes.get(key, math.inf if key == "max" else -math.inf))


def _normalization(node: Node) -> Op:
    weight = node.input_shape(1) if node.constant(1) else ()
    return Op(node.name, "activation", node.x, weight, node.constant(2), function=_snake(node.kind))


def _batch_norm(node: Node) -> Op:
    return Op(node.name, "affine", node.x, node.input_shape(1), bias=True)


def _slopes(node: Node) -> Op:
    return Op(node.name, "activation", node.x, _constant_part(node), function="prelu")


def _pool(node: Node) -> Op:
    kernel = node.attributes["kernel_shape"]
    return Op(
        node.name,
        "max_pool" if node.kind == "MaxPool" else "avg_pool",
        node.x,
        stride=_pair(node.attributes.get("strides", ())),
        padding=padding_of(node.attributes, node.input_shape(0)[2:], kernel),
        kernel_size=_pair(kernel),
        dilation=_pair(node.attributes.get("dilations", ())),
    )


def _global_pool(node: Node) -> Op:
    return Op(node.name, "global_avg_pool", node.x)


def _reduce(node: Node) -> Op:
    if node.kind == "ReduceMean" and len(node.input_shape(0)) == 4 and node.axes() == [2, 3]:
        return _global_pool(node)
    return Op(node.name, "reduce", node.x[:1], function=_snake(node.kind.removeprefix("Reduce").removeprefix("Global")))


def _view(node: Node) -> Op:
    flat = node.shape == (1, math.prod(node.input_shape(0)))
    return Op(node.name, "flatten" if flat else "reshape", node.x)


def _pad(node: Node) -> Op:
    """``padding`` where it is zeros around height and width; a fill, a mode or other axes make a function."""
    mode = node.attributes.get("mode", b"constant").decode()
    fill = node.tensors.numbers(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else [0.0]
    around = _pads(node)
    if (
        mode != "constant"
        or fill != [0.0]
        or len(around) != 4
        or any(map(any, around[:2]))
        or min(map(min, around)) < 0
    ):
        return Op(node.name, "pad", node.x, function=mode)
    (top, bottom), (left, right) = around[2:]
    return Op(node.name, "pad", node.x, padding=(top, left, bottom, right))


def _pads(node: Node) -> list[tuple[int, int]]:
    """What is added before and after each axis; nothing where that is not constant."""
    pads = node.attributes.get("pads") or node.tensors.integers(node.inputs[1])
    named = len(node.inputs) > 3 and node.inputs[3]
    axes = node.tensors.integers(node.inputs[3]) if named else list(range(len(node.shape)))
    if not pads or not axes:
        return []
    around = [(0, 0)] * len(node.shape)
    for i, axis in enumerate(axes):
        around[axis] = (pads[i], pads[i + len(axes)])
    return around


def _constant_part(node: Node) -> Shape:
    """Shape of the constant that goes into the operation, if it has more than one number."""
    shapes = [node.input_shape(i) for i in range(_data_inputs(node)) if node.constant(i)]
    return next((shape for shape in shapes if math.prod(shape) > 1), ())


def _data_inputs(node: Node) -> int:
    if node.kind in ("Concat", "Sum", "Max", "Min"):
        return len(node.inputs)
    return 2 if node.kind in _BINARY or node.kind == "PRelu" else 1


def _pair(values: Sequence[int]) -> Pair:
    """Height and width of a list for any number of axes; one that is missing is 1."""
    height, width = (1, 1, *values)[-2:]
    return (height, width)


def _four(begins: Sequence[int], ends: Sequence[int]) -> Four:
    (top, left), (bottom, right) = (0, 0, *begins)[-2:], (0, 0, *ends)[-2:]
    return (top, left, bottom, right)


def _snake(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return words.replace("normalization", "norm")


_BINARY = {
    "Add": ("add", "none"), "Sub": ("add", "sub"), "Sum": ("add", "none"), "Max": ("add", "max"), "Min": ("add", "min"),
    "Mul": ("mul", "none"), "Div": ("mul", "div"),
}  # fmt: skip
_SAME_NAME = (
    "Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh",
    "Softplus", "Softsign", "Mish", "Gelu", "Softmax", "LogSoftmax", "Hardmax", "Abs", "Neg", "Exp", "Log", "Sqrt",
    "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Tan", "Atan", "Erf", "Cast", "Shrink", "Not",
    "CumSum", "LRN", "LpNormalization", "MeanVarianceNormalization",
)  # fmt: skip
_FUNCTIONS = {
    **{kind: _snake(kind) for kind in _SAME_NAME},
    "Swish": "silu", "FastGelu": "gelu", "BiasGelu": "gelu", "QuickGelu": "quick_gelu",
}  # fmt: skip
_MOVES = {
    "Concat": "concat", "Slice": "slice", "Split": "slice", "Transpose": "transpose", "DepthToSpace": "transpose",
    "SpaceToDepth": "transpose", "Resize": "resize", "Upsample": "resize", "Gather": "gather", "GatherND": "gather",
    "GatherElements": "gather", "Expand": "expand", "Tile": "expand",
}  # fmt: skip
_READERS: Mapping[str, Callable[[Node], Op]] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _conv),
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _pool),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _view),
    **dict.fromkeys(
        ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"), _normalization
    ),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Pow": _power,
    "Clip": _clip,
    "BatchNormalization": _batch_norm,
    "PRelu": _slopes,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _reduce,
    "GlobalLpPool": _reduce,
    "Pad": _pad,
}
