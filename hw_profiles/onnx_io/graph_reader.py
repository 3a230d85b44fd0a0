"""Reads a float32 ONNX file as a Graph: operations with weights, and whole nodes that the writer cannot write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hw_profiles.errors import InputError
from hw_profiles.network.graph import MOVES, Graph, KeptNodes, Value
from hw_profiles.network.workload import UNKNOWN, VIEWS, InputShape, Op, Workload
from hw_profiles.onnx_io.graph_edges import batch_first, reads
from hw_profiles.onnx_io.reader import Names, read_with_names
from hw_profiles.onnx_io.rewrites.half_precision import in_float32
from hw_profiles.onnx_io.rewrites.normal_form import normal_form
from hw_profiles.onnx_io.rewrites.runtime_folding import folded
from hw_profiles.onnx_io.rewrites.subpixel_convolutions import make_subpixel
from hw_profiles.onnx_io.untrusted_file import load_model, shown
from hw_profiles.onnx_io.writable_ops import Place, writable_weights

_QUANTIZERS = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QGemm",
)  # fmt: skip
_FOUR_BITS = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)
_LEAST_OPSET = 14  # the first that has all operations which the writer writes


def read_graph(source: Path | bytes, input_shape: InputShape = None) -> Graph:
    """The graph of a float32 file in its normal form (:func:`hw_profiles.onnx_io.rewrites.normal_form.normal_form`),
    with constants and batch normalization folded as ONNX Runtime folds them, and convolutions for transposed ones
    (:func:`hw_profiles.onnx_io.rewrites.subpixel_convolutions.make_subpixel`). One that computes in float16 is widened.

    An operation that :func:`hw_profiles.onnx_io.writer.write_graph` can write is read with its weights; the nodes
    of any other stay as they are. Names of inputs and outputs, an open batch and metadata are those of the file.
    A weight that several operations read is held once; each has a bias of its own, which in integers has a scale of
    its own.

    Args:
        source: the file, or what stands in it.
        input_shape: (C, H, W) where the file leaves sides of its input open; {name: sides} of several inputs, which
            stay open in what is written.

    Raises:
        InputError: see :func:`hw_profiles.onnx_io.reader.read_onnx`; a network that is quantized already.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> graph = read_graph(write_onnx(preset("resnet8").workload()))
    >>> graph.workload.macs == preset("resnet8").workload().macs, graph.weights["classifier.weight"].shape
    (True, (10, 64))
    """
    given = in_float32(load_model(source))
    _check_float(given.graph)
    closed = None if isinstance(input_shape, Mapping) else input_shape
    normal = normal_form(given, input_shape=closed, opset=_LEAST_OPSET)
    _check_float(normal.graph)
    make_subpixel(normal.graph)
    model = folded(normal)
    workload, names = read_with_names(model, input_shape)
    reader = _GraphReader(model, workload, names)
    ops = tuple(reader.read(op) for op in workload.ops)
    return Graph(
        workload=replace(workload, ops=ops, formats={}),
        weights=reader.weights,
        kept=reader.kept,
        opsets={each.domain: each.version for each in model.opset_import},
        inputs=tuple(map(_value, normal.graph.input)),
        outputs=tuple((_value(each), reader.output(each.name)) for each in normal.graph.output),
        metadata={each.key: each.value for each in given.metadata_props},
    )


def _check_float(graph: Any) -> None:
    """Raise an InputError where a network is quantized, or its weights are stored in 4 bits."""
    few = [tensor.name for tensor in graph.initializer if tensor.data_type in _FOUR_BITS]
    if few:
        raise InputError(f"a float32 network is needed, got one whose weights are stored in 4 bits, such as {few[0]}")
    if any(node.op_type in _QUANTIZERS or node.op_type.startswith("QLinear") for node in graph.node):
        raise InputError("a float32 network is needed, got one that is quantized already")


def _value(value: Any) -> Value:
    kind = value.type.tensor_type
    sides = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in kind.shape.dim]
    return Value(value.name, tuple(sides), kind.elem_type)


class _GraphReader:
    def __init__(self, model: Any, workload: Workload, names: Names) -> None:
        self.names = names
        self.workload = workload
        self.makers = {name: node for node in model.graph.node for name in node.output if name}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.batch_first = batch_first(model.graph)
        self.order = {id(node): i for i, node in enumerate(model.graph.node)}
        # Where nodes after the one that an operation is called after were merged into it: what the last one makes.
        self.ends = {self.tensor(name): name for name in self.makers if self.names.alias.get(name) in names.merged}
        self.weights: dict[str, Any] = {}
        self.readers: dict[str, str] = {}  # what kind of operation reads a weight
        self.kept: dict[str, KeptNodes] = {}

    def tensor(self, name: str) -> str:
        """The tensor of the workload that a tensor of the file is, "" for one that lies within an operation."""
        found = self.names.alias.get(name, "")
        if found in self.workload.shapes:
            return found
        if found not in self.names.merged or self.makers[found].op_type == "Pad":  # which is not what it is merged into
            return ""
        return self.names.merged[found]

    def output(self, name: str) -> str:
        """The tensor of the workload that an output is."""
        found = self.tensor(name)
        if not found:
            raise InputError(f"output {shown(name)} does not depend on the input")
        return found

    def read(self, op: Op) -> Op:
        """The operation; its weights or its nodes are noted."""
        op = replace(op, shared_bias="")
        end = self.ends.get(op.name, op.name)
        node = self.makers.get(op.name) or self.makers[op.name.removesuffix(".pool")]
        plain = not self._formatted(op.name, *op.inputs, op.weight, op.bias_name)
        first = not node.input or node.input[0] in self.batch_first
        last = self.makers.get(end, node)
        place = Place(op, node, last, self.workload.shapes, self.constants, self.makers, first)
        weights = writable_weights(place) if plain else None
        if weights is not None:
            return self._written(op, weights)
        nodes, read = self._between(op.name, end)
        used = {name: self.constants[name] for each in nodes for name in reads(each) if name in self.constants}
        own = {end: op.name} if end == op.name else {end: op.name, op.name: f"{op.name}.before"}
        self.kept[op.name] = KeptNodes(tuple(self._renamed(each, own) for each in nodes), tuple(used.values()))
        kind = "reshape" if op.kind in VIEWS else op.kind
        if kind in MOVES and len(read) == 1 and not self._formatted(op.name, *read):
            return Op(op.name, kind, tuple(read))
        return Op(op.name, UNKNOWN, tuple(read), function=node.op_type)

    def _written(self, op: Op, weights: dict[str, Any]) -> Op:
        """The operation with its weights noted; it shares one that is read in the same way alone."""
        own = replace(op, shared_weight="")
        same = self.readers.setdefault(op.weight, op.kind) == op.kind
        if op.shared_weight and op.weight in self.weights:
            same = same and np.array_equal(self.weights[op.weight], weights[op.weight])
        if op.weight in weights and not same:
            weights[own.weight] = weights.pop(op.weight)
            op = own
        self.weights |= weights
        return op

    def _formatted(self, *names: str) -> bool:
        """Whether one of these is something else than float32."""
        return not self.workload.formats.keys().isdisjoint(names)

    def _between(self, name: str, end: str) -> tuple[list[Any], list[str]]:
        """The nodes between the tensors that other operations make and what this one makes, and these tensors."""
        waiting, nodes, read = [end], dict[int, Any](), dict[str, None]()
        while waiting:
            tensor = waiting.pop()
            other = self.tensor(tensor)
            if other and other != name:
                read[other] = None
            elif tensor in self.makers:
                node = self.makers[tensor]
                waiting.extend(reads(node) if id(node) not in nodes else ())
                nodes[id(node)] = node
        return sorted(nodes.values(), key=lambda node: self.order[id(node)]), list(read)

    def _renamed(self, node: Any, own: dict[str, str]) -> Any:
        """The node with the names of the graph."""
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        for names in (changed.input, changed.output):
            for i, name in enumerate(names):
                names[i] = own.get(name) or self.tensor(name) or name
        return changed
