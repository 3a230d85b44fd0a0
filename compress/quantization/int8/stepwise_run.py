"""Runs a file part by part on many inputs, so that weights of later parts may still change."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from compress.data.network_inputs import Inputs, NamedInputs
from compress.quantization.int8.activation_stats import batches, by_name, fixed_batch, run
from hw_profiles.network.graph import Graph
from hw_profiles.network.quantization import Quantization
from hw_profiles.network.workload import Op, Workload
from hw_profiles.onnx_io.session import open_session
from hw_profiles.onnx_io.writer import write_graph

_BATCH = 16
_HELD_BYTES = 400_000_000  # of float tensors at a time
_ANY_SCALE = (1.0, 0)
_WIDENS = "DequantizeLinear"  # is computed again wherever it is read: the integers take a quarter of the memory


class StepwiseRun:
    """The tensors of a network between what was computed and what was not, for all inputs, batch by batch."""

    def __init__(self, model: bytes, images: Inputs) -> None:
        parsed = onnx.load_model_from_string(model)
        given = by_name(parsed.graph, images)
        feeds = list(batches(given, fixed_batch(parsed.graph), _BATCH))
        self.count = len(given)
        self.held: dict[str, list[NDArray[Any]]] = {name: [feed[name] for feed in feeds] for name in given.arrays}
        self.done: set[str] = set()  # the first tensors that nodes make which were computed
        self.model = parsed
        self.makers = {name: node for node in parsed.graph.node for name in node.output if name}
        self.constants = {tensor.name: tensor for tensor in parsed.graph.initializer}

    def change(self, constants: Iterable[Any]) -> None:
        """Other constants of the same names, for what is computed from now on."""
        for tensor in constants:
            self.constants[tensor.name].CopyFrom(tensor)

    def advance(self, name: str) -> NDArray[Any]:
        """Compute a tensor, for all inputs: the batches in one array."""
        if name not in self.held:
            self._compute(name)
        return np.concatenate([np.atleast_1d(part) for part in self.held[name]])

    def _compute(self, name: str) -> None:
        nodes = self._missing(name)
        self.done |= {_first(node) for node in nodes if node.op_type != _WIDENS}
        made = {each for node in nodes for each in node.output}
        wanted = [name, *sorted((self._needed() & made) - {name})]
        found = self._computed(nodes, wanted)
        self.held |= found
        needed = self._needed()
        self.held = {each: parts for each, parts in self.held.items() if each in needed or each == name}

    def extend(self, images: Inputs) -> None:
        """More inputs, up to where the others are."""
        self.count += len(images)
        for found in run(self.model.SerializeToString(), list(self.held), images):
            for name, parts in self.held.items():
                parts.append(found[name])

    def _missing(self, name: str) -> list[Any]:
        """The nodes that are needed for a tensor and were not computed, in the file's order."""
        found: set[str] = set()
        open_names = [name]
        while open_names:
            node = self.makers.get(open_names.pop())
            if node is not None and _first(node) not in found:
                found.add(_first(node))
                open_names += [each for each in node.input if each not in self.held]
        return [node for node in self.model.graph.node if _first(node) in found]

    def _needed(self) -> set[str]:
        """The tensors that nodes read which were not computed."""
        read = set()
        for node in self.model.graph.node:
            if node.op_type != _WIDENS and _first(node) not in self.done:
                read |= {self._source(name) for name in node.input}
        return {name for name in read if self._is_computed(name)}

    def _source(self, name: str) -> str:
        """What a tensor is widened from, else the tensor itself."""
        maker = self.makers.get(name)
        return maker.input[0] if maker is not None and maker.op_type == _WIDENS else name

    def _is_computed(self, name: str) -> bool:
        return name in self.held or (name in self.makers and _first(self.makers[name]) in self.done)

    def _computed(self, nodes: list[Any], wanted: list[str]) -> dict[str, list[NDArray[Any]]]:
        read = {name for node in nodes for name in node.input}
        given = {name: parts for name, parts in self.held.items() if name in read}
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(parts[0].dtype), _common_sides(parts))
            for name, parts in given.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
        constants = [tensor for name, tensor in self.constants.items() if name in read]
        part = helper.make_model(
            helper.make_graph(nodes, "part", inputs, outputs, constants),
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
        )
        session = open_session(part.SerializeToString())
        count = len(next(iter(self.held.values())))
        made = [session.run(wanted, {name: parts[i] for name, parts in given.items()}) for i in range(count)]
        return {name: [each[i] for each in made] for i, name in enumerate(wanted)}


def _first(node: Any) -> str:
    """The first tensor that a node makes; some leave the places before it empty."""
    return str(next(name for name in node.output if name))


def _common_sides(parts: list[NDArray[Any]]) -> list[int | None]:
    """The sides that are the same in all; the rules by which ONNX Runtime infers shapes fail on some that are open."""
    sides = zip(*(part.shape for part in parts), strict=True)
    return [each[0] if len(set(each)) == 1 else None for each in sides]


def constants_of(graph: Graph, quantization: Quantization | None, op: Op) -> list[Any]:
    """The weights of an operation and what belongs to them, as they are in the file."""
    whole = graph.workload
    shapes = {name: whole.shapes[name] for name in (*op.inputs, op.name)}
    workload = replace(whole, input=op.inputs[0], further_inputs=(), output=op.name, ops=(op,), shapes=shapes)
    if quantization is not None:
        quantization = replace(quantization, activations={op.name: _ANY_SCALE, **quantization.activations})
    alone = onnx.load_model_from_string(write_graph(Graph(workload=workload, weights=graph.weights), quantization))
    of_output = (f"{op.name}.scale", f"{op.name}.zero_point")
    return [tensor for tensor in alone.graph.initializer if tensor.name not in of_output]


class Lockstep:
    """A float network and a rounded one of the same operations, side by side, on as many of the inputs as fit."""

    def __init__(self, workload: Workload, exact: bytes, rounded: bytes, images: Inputs) -> None:
        self.workload, self.images = workload, images
        self.places = {op.name: i for i, op in enumerate(workload.ops)}
        count = self._count(0)
        self.exact, self.rounded = (StepwiseRun(data, images[:count]) for data in (exact, rounded))

    def reach(self, op: Op) -> None:
        """From this operation on: more inputs, where all tensors that come are smaller."""
        count, held = self._count(self.places[op.name]), self.exact.count
        if count >= 2 * held or held < count == len(self.images):
            for each in (self.exact, self.rounded):
                each.extend(self.images[held:count])

    def _count(self, place: int) -> int:
        shapes, ops = self.workload.shapes, self.workload.ops[place:]
        largest = max(sum(math.prod(shapes[name]) for name in (op.name, *op.inputs)) for op in ops)
        whole = isinstance(self.images, NamedInputs) and self.images.whole_calls
        batch = 1 if whole else max(shapes[name][0] for name in self.workload.inputs if shapes[name])
        count = min(len(self.images), max(_HELD_BYTES // (4 * largest), 1) * batch)
        return min(max(count // batch, 1) * batch, len(self.images))
