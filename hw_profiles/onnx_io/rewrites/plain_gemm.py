"""Rewrites Gemm nodes as plain ones: x times weights, and a bias for each output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import helper, numpy_helper


def make_plain(graph: Any) -> None:
    """Fold alpha, beta, transA and biases of any shape of the graph's Gemm nodes into what they read, in place.

    Constants take the factors; where an operand is computed, a Mul does. A bias that is not the same for every row
    becomes an Add of its own. Gemm: Y = alpha · A' · B' + beta · C (ONNX operator specification, Gemm-13).

    >>> from onnx import TensorProto
    >>> ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in "xy"]
    >>> ones = {"w": np.ones((2, 2), np.float32), "b": np.ones(1, np.float32)}
    >>> held = [numpy_helper.from_array(value, name) for name, value in ones.items()]
    >>> gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, beta=3.0)
    >>> graph = helper.make_graph([gemm], "g", ends[:1], ends[1:], held)
    >>> make_plain(graph)
    >>> held = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer}
    >>> [held[name] for name in graph.node[0].input[1:]]
    [[[0.5, 0.5], [0.5, 0.5]], [3.0, 3.0]]
    """
    if not any(node.op_type == "Gemm" for node in graph.node):
        return
    rewriter = _Rewriter(graph)
    nodes = [new for node in graph.node for new in (rewriter.plain(node) if _is_gemm(node) else [node])]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    graph.ClearField("node")
    graph.node.extend(copies)


def _is_gemm(node: Any) -> bool:
    return bool(node.op_type == "Gemm" and node.domain in ("", "ai.onnx"))


class _Rewriter:
    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.taken = {*self.constants, *(value.name for value in graph.input)}
        self.taken.update(name for node in graph.node for name in node.output)

    def plain(self, node: Any) -> list[Any]:
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        alpha, beta = float(given.get("alpha", 1.0)), float(given.get("beta", 1.0))
        a, b, c = [*node.input, ""][:3]
        if beta == 0:
            c = ""
        nodes: list[Any] = []
        if given.get("transA", 0):
            a = self._node(nodes, "Transpose", [a], f"{a}.turned", perm=[1, 0])
        if alpha != 1:
            b = self._times(nodes, b, alpha)
        added = ""
        if c:
            c = self._times(nodes, c, beta) if beta != 1 else c
            c, added = self._bias(c, b, bool(given.get("transB", 0)))
        result = self._free(f"{node.output[0]}.product") if added else node.output[0]
        options: dict[str, Any] = {"transB": 1} if given.get("transB", 0) else {}
        nodes.append(helper.make_node("Gemm", [a, b, *([c] if c else [])], [result], name=node.name, **options))
        if added:
            nodes.append(helper.make_node("Add", [result, added], [node.output[0]], name=result))
        return nodes

    def _times(self, nodes: list[Any], name: str, factor: float) -> str:
        value = self._value(name)
        if value is not None:
            return self._constant((value * np.asarray(factor, value.dtype)).astype(value.dtype), f"{name}.scaled")
        return self._node(nodes, "Mul", [name, self._constant(np.float32(factor), f"{name}.factor")], f"{name}.scaled")

    def _bias(self, name: str, weight: str, transposed: bool) -> tuple[str, str]:
        """What the Gemm adds, and what has to be added after it."""
        value, weights = self._value(name), self.constants.get(weight)
        if value is None:
            return name, ""  # computed: by its own rules of shape
        if value.ndim == 2 and value.shape[0] > 1:
            return "", name
        width = value.shape[-1] if value.ndim else 1
        if weights is not None and len(weights.dims) == 2:
            width = weights.dims[0 if transposed else 1]
        if value.shape == (width,):
            return name, ""
        return self._constant(np.broadcast_to(value.reshape(-1), (width,)), f"{name}.each"), ""

    def _value(self, name: str) -> Any | None:
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _constant(self, value: Any, name: str) -> str:
        free = self._free(name)
        tensor = numpy_helper.from_array(np.array(value), free)
        self.constants[free] = tensor
        self.graph.initializer.append(tensor)
        return free

    def _node(self, nodes: list[Any], kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        free = self._free(name)
        nodes.append(helper.make_node(kind, inputs, [free], name=free, **attributes))
        return free

    def _free(self, name: str) -> str:
        free = next(each for each in _numbered(name) if each not in self.taken)
        self.taken.add(free)
        return free


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}.{number}"
        number += 1
