"""Pointwise functions as tables over all 8-bit integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compress.c99.layers import INTEGERS
from compress.c99.qdq_graph import Graph, TensorQuantization, place
from hw_profiles.errors import InputError

POINTWISE = (
    "Abs", "Add", "Atan", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal",
    "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish",
    "Tanh", "ThresholdedRelu",
)  # fmt: skip

EIGHTHS, PARTS_OF_EIGHTHS = (
    np.exp(-each).astype(np.float32) for each in (np.arange(256) / 8, (np.arange(256) + 0.5) / 2048)
)
"""e to minus a number in 0..32 is a product of two: for its eighths, and for the 256 parts of one."""


def table(
    graph: Graph, read: str, output: str, before: TensorQuantization, after: TensorQuantization
) -> NDArray[np.int8]:
    """The 256 outputs of the nodes between two float tensors, for the inputs -128..127, by ONNX's reference in numpy.

    Raises:
        InputError: a node between them is not a function of one number, or gives no number.

    >>> from onnx.helper import make_graph, make_model, make_node
    >>> relu = Graph(make_model(make_graph([make_node("Relu", ["x"], ["y"])], "g", [], [])))
    >>> q = TensorQuantization(scale=1.0, zero_point=0)
    >>> table(relu, "x", "y", q, q)[[0, 127, 128, 255]].tolist()
    [0, 0, 0, 127]
    """
    return after.of(numbers(graph, read, output, before.to_float(INTEGERS)))


def numbers(graph: Graph, read: str, output: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the nodes between two float tensors make of the numbers ``x``, as float32."""
    nodes = _between(graph, read, output)
    if nodes:
        x = _evaluated(graph, nodes, read, output, x)
    if np.isnan(x).any():
        raise InputError(f"{place(graph.producers[output])}: must give a number for every input, got NaN")
    return x


def _between(graph: Graph, read: str, output: str) -> list[Any]:
    """The nodes that make ``output`` from ``read`` and constants, in the order of the graph."""
    found: list[Any] = []
    waiting = [output]
    while waiting:
        name = waiting.pop()
        name = name if name in graph.constants else graph.source(name)
        if name in (read, "") or name in graph.constants:
            continue
        node = graph.producers.get(name)
        if node is None or node.op_type not in POINTWISE or node.domain not in ("", "ai.onnx"):
            kind = f"tensor {name!r}" if node is None else place(node)
            raise InputError(f"{kind}: unsupported elementwise function in the C99 export; replace or remove it")
        if any(graph.constants[i].size != 1 for i in node.input if i in graph.constants):
            raise InputError(f"{place(node)}: its constant must be one number, not one per channel")
        if node not in found:
            found.append(node)
            waiting.extend(node.input)
    outputs = {node.output[0] for node in found}
    return [node for node in graph.model.graph.node if outputs.intersection(node.output)]


def _evaluated(graph: Graph, nodes: list[Any], read: str, output: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
    renamed = []
    for node in nodes:
        copy = type(node)()
        copy.CopyFrom(node)
        for i, name in enumerate(node.input):
            if name and name not in graph.constants:
                copy.input[i] = graph.source(name)
        renamed.append(copy)
    constants = [
        numpy_helper.from_array(graph.constants[name].reshape(()), name)
        for name in sorted({i for n in nodes for i in n.input if i in graph.constants})
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [len(x)]) for name in (read, output)]
    built = helper.make_graph(renamed, "function", ends[:1], ends[1:], constants)
    opsets = [o for o in graph.model.opset_import if o.domain in ("", "ai.onnx")]
    model = helper.make_model(built, opset_imports=opsets or [helper.make_opsetid("", 20)])
    with np.errstate(all="ignore"):
        try:
            results: Any = ReferenceEvaluator(model).run(None, {read: x})
        except Exception as error:  # whatever numpy says to attributes and constants that do not fit
            raise InputError(f"{place(nodes[-1])}: cannot be computed ({type(error).__name__})") from None
    values: NDArray[np.float32] = np.asarray(results[0], np.float32).reshape(-1)
    return values
