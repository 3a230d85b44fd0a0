"""The scale of an input that a file normalizes in float before it quantizes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compress.c99.qdq_graph import Graph, TensorQuantization

_LINES = ("Add", "BatchNormalization", "Div", "Identity", "Mul", "Sub", "Transpose")
_NAME = "input of the program"
_CLOSE = 1e-3


def quantize_input(model: Any) -> None:
    """Where the input goes through sums and products with constants before it is quantized, quantize it itself, in
    place: so that its 256 steps cover what the quantization after them can hold.

    >>> from onnx import TensorProto
    >>> held = {"mean": np.float32([[2], [4]]), "s": np.float32(0.5), "z": np.uint8(128)}
    >>> nodes = [helper.make_node("Sub", ["x", "mean"], ["a"])]
    >>> nodes.append(helper.make_node("QuantizeLinear", ["a", "s", "z"], ["y"]))
    >>> ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 3])]
    >>> ends += [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 2, 3])]
    >>> constants = [numpy_helper.from_array(value, name) for name, value in held.items()]
    >>> model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], constants), ir_version=10)
    >>> quantize_input(model)
    >>> [node.op_type for node in model.graph.node]
    ['QuantizeLinear', 'DequantizeLinear', 'Sub', 'QuantizeLinear']
    >>> [numpy_helper.to_array(t).item() for t in model.graph.initializer[3:]]  # -62..67.5 in 255 steps
    [0.5078431367874146, -6]
    """
    graph, given = Graph(model), model.graph.input[0]
    shape = [dim.dim_value for dim in given.type.tensor_type.shape.dim]
    chain = _chain(graph, given.name)
    if not chain or given.type.tensor_type.elem_type != onnx.TensorProto.FLOAT or min(shape, default=0) < 1:
        return
    *lines, last = chain
    found = _range(graph, lines, given, graph.quantization(last), shape)
    if found is None:
        return
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    scale = np.float32((high - low) / 255)
    zero_point = np.int8(np.clip(np.rint(-128 - low / scale), -128, 127))
    names = [f"{_NAME}: {part}" for part in ("scale", "zero point", "integers", "numbers")]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(v), n) for v, n in ((scale, names[0]), (zero_point, names[1]))
    )
    first = lines[0]
    first.input[list(first.input).index(given.name)] = names[3]
    nodes = [
        helper.make_node("QuantizeLinear", [given.name, *names[:2]], [names[2]]),
        helper.make_node("DequantizeLinear", [names[2], *names[:2]], [names[3]]),
        *(type(node).FromString(node.SerializeToString()) for node in model.graph.node),
    ]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)


def _chain(graph: Graph, name: str) -> list[Any]:
    """The nodes from the input to the one that quantizes it; nothing where others read it on the way."""
    found: list[Any] = []
    while True:
        readers = graph.consumers.get(name, [])
        if len(readers) != 1:
            return []
        node = readers[0]
        others = [each for each in node.input if each and each != name]
        if not all(map(graph.constant, others)):
            return []
        found.append(node)
        if node.op_type == "QuantizeLinear":
            return found if len(found) > 1 else []
        if node.op_type not in _LINES or len(node.output) != 1:
            return []
        name = node.output[0]


def _range(
    graph: Graph, nodes: list[Any], given: Any, to: TensorQuantization, shape: list[int]
) -> tuple[float, float] | None:
    """The least and the largest input that any number of the quantized tensor can stand for."""
    end = helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)
    arrays = {name: graph.number_array(name) for node in nodes for name in node.input}
    constants = [numpy_helper.from_array(each, name) for name, each in arrays.items() if each is not None]
    built = helper.make_graph(nodes, "lines", [given], [end], constants)
    opsets = [each for each in graph.model.opset_import if each.domain in ("", "ai.onnx")]
    evaluator: Any = ReferenceEvaluator(helper.make_model(built, opset_imports=opsets))

    def of(number: float) -> NDArray[np.float64]:
        return np.asarray(evaluator.run(None, {given.name: np.full(shape, number, np.float32)})[0], np.float64)

    zero, one, two = of(0), of(1), of(2)
    factor = one - zero
    straight = np.abs(two - zero - 2 * factor) <= _CLOSE * (np.abs(factor) + np.abs(zero) * _CLOSE)
    if not straight.all() or not factor.all():
        return None
    ends = np.stack([(limit - zero) / factor for limit in to.to_float(np.array([-128, 127], np.int8))])
    return float(ends.min()), float(ends.max())
