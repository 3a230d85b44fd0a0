"""Edges of an ONNX graph: order of nodes, consumers of tensors, nodes that are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx import helper, numpy_helper

from hw_profiles.errors import InputError, short_reason
from hw_profiles.onnx_io.shapes import where
from hw_profiles.onnx_io.untrusted_file import shown

_OF_A_TENSOR = "ReverseSequence"


def check_order(graph: Any) -> None:
    """Refuses tensors that are made twice, or read before they are made (which a cycle needs).

    >>> from onnx.helper import make_graph, make_node
    >>> check_order(make_graph([make_node("Relu", ["y"], ["y"], name="loop")], "g", [], []))
    Traceback (most recent call last):
    ...
    hw_profiles.errors.InputError: node 'loop' (Relu): input 'y' must be made by an earlier node
    """
    produced = {"", *(i.name for i in graph.input), *(t.name for t in graph.initializer)}
    produced.update(t.values.name for t in graph.sparse_initializer)
    for node in graph.node:
        if not any(node.output):
            raise InputError(f"{where(node)}: must make a tensor")
        for name in reads(node):
            if name not in produced:
                raise InputError(f"{where(node)}: input {shown(name)} must be made by an earlier node")
        for name in filter(None, node.output):
            if name in produced:
                raise InputError(f"{where(node)}: tensor names must differ, {shown(name)} is made twice")
            produced.add(name)
    for output in graph.output:
        if output.name not in produced:
            raise InputError(f"output {shown(output.name)} must be made by a node")


def reads(node: Any) -> Iterator[str]:
    """The tensors that a node reads, those from outside its subgraphs too."""
    yield from filter(None, node.input)
    seen = set(node.input)
    for graph in subgraphs(node):
        inside = {*(i.name for i in graph.input), *(t.name for t in graph.initializer)}
        for inner in graph.node:
            outer = dict.fromkeys(name for name in reads(inner) if name not in inside and name not in seen)
            yield from outer
            seen.update(outer)
            inside.update(inner.output)


def consumers_of(graph: Any) -> dict[str, list[Any]]:
    """The nodes that read each tensor, None for who runs the file."""
    consumers: dict[str, list[Any]] = {value.name: [None] for value in graph.output}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    return consumers


def subgraphs(node: Any) -> Iterator[Any]:
    """The graphs that a node (If, Loop, Scan) holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def check_valid(model: Any) -> None:
    """Raise an InputError where ONNX's checker refuses what was made of a file.

    >>> check_valid(helper.make_model(helper.make_graph([], "g", [], [])))
    """
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise InputError(f"the changed file would not be valid ({short_reason(error)})") from None


def check_straight(node: Any) -> None:
    """Raise an InputError where a node holds graphs of its own or makes sequences: algorithms follow tensors alone.

    >>> from onnx.helper import make_node
    >>> check_straight(make_node("Relu", ["x"], ["y"]))
    """
    makes_sequence = "Sequence" in node.op_type and node.op_type != _OF_A_TENSOR
    if any(True for _ in subgraphs(node)) or makes_sequence:
        raise InputError(
            f"{where(node)}: control flow and sequences are not followed: only encode and decode take such a file"
        )


def batch_first(graph: Any) -> frozenset[str]:
    """The tensors whose first axis is that of the inputs, as far as the nodes before them say.

    >>> from onnx.helper import make_graph, make_node, make_tensor_value_info
    >>> x = make_tensor_value_info("x", 1, ["N", 4, 8])
    >>> nodes = [make_node("Relu", ["x"], ["y"]), make_node("Transpose", ["y"], ["z"], perm=[1, 0, 2])]
    >>> sorted(batch_first(make_graph(nodes, "g", [x], [])))
    ['x', 'y']
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    found = {value.name for value in graph.input}
    for node in graph.node:
        read = [name for name in reads(node) if name not in constants]
        if found.issuperset(read) and not _moves_first_axis(node, constants):
            found.update(node.output)
    return frozenset(found)


def _moves_first_axis(node: Any, constants: Mapping[str, Any]) -> bool:
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return not given.get("layout", 0)
    if node.op_type == "Transpose":
        return list(given.get("perm", ()))[:1] != [0]
    if node.op_type in ("Squeeze", "Unsqueeze"):
        axes = given.get("axes")
        if axes is None and len(node.input) > 1 and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input[1]]).reshape(-1).tolist()
        return axes is None or 0 in axes
    return False


def needed_nodes(graph: Any) -> list[Any]:
    """The nodes that an output depends on, in order."""
    needed = {o.name for o in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(reads(node))
    return kept[::-1]
