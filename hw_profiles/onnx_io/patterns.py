"""Finds chains of ONNX nodes that a runtime runs as one function, such as GELU and layer normalization."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Pattern:
    """``function`` of the tensor ``source``, with ``constants``; the tensors ``inner`` exist no more."""

    function: str
    source: str
    inner: tuple[str, ...]
    constants: tuple[str, ...] = ()


def find_patterns(nodes: Sequence[Any], outputs: Sequence[str], constants: set[str]) -> dict[str, Pattern]:
    """Patterns by the name of the tensor that each makes.

    GELU written with Erf, and layer normalization written out.

    >>> from onnx.helper import make_node
    >>> nodes = [make_node("Div", ["x", "root"], ["a"]), make_node("Erf", ["a"], ["b"])]
    >>> nodes += [make_node("Add", ["b", "one"], ["c"]), make_node("Mul", ["x", "c"], ["d"])]
    >>> nodes += [make_node("Mul", ["d", "half"], ["y"])]
    >>> find_patterns(nodes, ["y"], {"root", "one", "half"})["y"].function
    'gelu'
    """
    graph = _Chains(nodes, outputs, constants)
    found: dict[str, Pattern] = {}
    for node in nodes:
        finder = _FINDERS.get(node.op_type)
        result = finder(graph, node) if finder and node.input and node.output else None
        if result is not None:
            found[result[0]] = result[1]
    return found


Found = tuple[str, Pattern] | None


class _Chains:
    def __init__(self, nodes: Sequence[Any], outputs: Sequence[str], constants: set[str]) -> None:
        self.constants = set(constants)
        for node in nodes:
            if node.op_type in ("Constant", "Identity") and self.constants.issuperset(node.input):
                self.constants.update(node.output)
        self.makers: dict[str, Any] = {name: node for node in nodes for name in node.output}
        self.consumers: dict[str, list[Any]] = {name: [None] for name in outputs}
        for node in nodes:
            for name in set(node.input):
                self.consumers.setdefault(name, []).append(node)

    def only_reader(self, name: str, *kinds: str) -> Any | None:
        consumers = self.consumers.get(name, [])
        node = consumers[0] if len(consumers) == 1 else None
        return node if node is not None and node.op_type in kinds and node.output else None

    def scaled(self, node: Any | None, name: str) -> bool:
        """Whether the node computes with this tensor and a constant."""
        return node is not None and len(node.input) == 2 and _other(node, name) in self.constants


def _other(node: Any, name: str) -> str:
    return next((i for i in node.input if i != name), name)


def _gelu(graph: _Chains, erf: Any) -> Found:
    """x · ½ · (1 + erf(x / √2)), the half taken before or after."""
    scaled = graph.makers.get(erf.input[0])
    if scaled is None or scaled.op_type not in ("Div", "Mul") or not graph.only_reader(erf.input[0], "Erf"):
        return None
    x = scaled.input[0]
    plus_one = graph.only_reader(erf.output[0], "Add")
    if not graph.scaled(scaled, x) or plus_one is None or not graph.scaled(plus_one, erf.output[0]):
        return None
    product = graph.only_reader(plus_one.output[0], "Mul")
    if product is None:
        return None
    return _half(graph, x, product, (erf.input[0], erf.output[0], plus_one.output[0]))


def _half(graph: _Chains, x: str, product: Any, inner: tuple[str, ...]) -> Found:
    factor = _other(product, inner[-1])
    if factor == x:
        last = graph.only_reader(product.output[0], "Mul", "Div")
        if last is not None and graph.scaled(last, product.output[0]):
            return last.output[0], Pattern("gelu", x, (*inner, product.output[0]))
        return None
    half = graph.makers.get(factor)
    if half is not None and x in half.input and graph.scaled(half, x) and graph.only_reader(factor, "Mul"):
        return product.output[0], Pattern("gelu", x, (*inner, factor))
    return None


def _layer_norm(graph: _Chains, mean: Any) -> Found:
    """(x - mean) / sqrt(mean((x - mean)²) + ε), and the scale and shift that follow."""
    x = mean.input[0]
    centered = graph.only_reader(mean.output[0], "Sub")
    if centered is None or list(centered.input) != [x, mean.output[0]]:
        return None
    difference = centered.output[0]
    consumers = {n.op_type: n for n in graph.consumers.get(difference, []) if n is not None}
    if set(consumers) != {"Pow", "Div"} or len(graph.consumers[difference]) != 2:
        return None
    inner = [mean.output[0], difference]
    at = consumers["Pow"]
    for kind in ("ReduceMean", "Add", "Sqrt", "Div"):
        inner.append(at.output[0])
        following = graph.only_reader(at.output[0], kind)
        if following is None:
            return None
        at = following
    if at is not consumers["Div"]:
        return None
    return _with_scale(graph, at, x, inner)


def _with_scale(graph: _Chains, divided: Any, x: str, inner: list[str]) -> Found:
    at, constants = divided, []
    for kind in ("Mul", "Add"):
        following = graph.only_reader(at.output[0], kind)
        if following is None or not graph.scaled(following, at.output[0]):
            break
        inner.append(at.output[0])
        constants.append(_other(following, at.output[0]))
        at = following
    return at.output[0], Pattern("layer_norm", x, tuple(inner), tuple(constants))


_FINDERS: Mapping[str, Callable[[_Chains, Any], Found]] = {
    "Erf": _gelu,
    "ReduceMean": _layer_norm,
}
