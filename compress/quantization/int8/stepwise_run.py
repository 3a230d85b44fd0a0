"""Runs a file part by part on many images, so that weights of later parts may still change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from compress.quantization.int8.activation_stats import Floats, run
from hw_profiles.network.graph import Graph
from hw_profiles.network.quantization import Quantization
from hw_profiles.network.workload import Op, Workload
from hw_profiles.onnx_io.session import open_session
from hw_profiles.onnx_io.writer import write_graph

Arrays = Mapping[str, NDArray[Any]]
_BATCH = 16
_HELD_BYTES = 400_000_000  # of float tensors at a time
_ANY_SCALE = (1.0, 0)
_WIDENS = "DequantizeLinear"  # is computed again wherever it is read: the integers take a quarter of the memory


class StepwiseRun:
    """The tensors of a network between what was computed and what was not, for all images (N, ...)."""

    def __init__(self, model: bytes, images: Floats) -> None:
        parsed = onnx.load_model_from_string(model)
        self.input = parsed.graph.input[0].name
        dims = parsed.graph.input[0].type.tensor_type.shape.dim
        self.batch = dims[0].dim_value if dims and dims[0].dim_value > 0 else _BATCH
        self.count = len(images)
        self.held: dict[str, NDArray[Any]] = {self.input: images}
        self.done: set[str] = set()  # the first outputs of nodes that were computed
        self.model = parsed
        self.makers = {name: node for node in parsed.graph.node for name in node.output if name}
        self.constants = {tensor.name: tensor for tensor in parsed.graph.initializer}

    def change(self, constants: Iterable[Any]) -> None:
        """Other constants of the same names, for what is computed from now on."""
        for tensor in constants:
            self.constants[tensor.name].CopyFrom(tensor)

    def __len__(self) -> int:
        return self.count

    def advance(self, name: str) -> NDArray[Any]:
        """Compute a tensor, for all images."""
        if name in self.held:
            return self.held[name]
        nodes = self._missing(name)
        self.done |= {node.output[0] for node in nodes if node.op_type != _WIDENS}
        made = {each for node in nodes for each in node.output}
        wanted = [name, *sorted((self._needed() & made) - {name})]
        found = self._computed(nodes, wanted)
        self.held |= found
        needed = self._needed()
        self.held = {each: value for each, value in self.held.items() if each in needed or each == name}
        return found[name]

    def extend(self, images: Floats) -> None:
        """More images, up to where the others are."""
        names = list(self.held)
        parts = list(run(self.model.SerializeToString(), names, images))
        for name in names:
            self.held[name] = np.concatenate([self.held[name], *(part[name] for part in parts)])
        self.count += len(images)

    def _missing(self, name: str) -> list[Any]:
        """The nodes that are needed for a tensor and were not computed, in the file's order."""
        found: set[str] = set()
        open_names = [name]
        while open_names:
            node = self.makers.get(open_names.pop())
            if node is not None and node.output[0] not in found:
                found.add(node.output[0])
                open_names += [each for each in node.input if each not in self.held]
        return [node for node in self.model.graph.node if node.output[0] in found]

    def _needed(self) -> set[str]:
        """The tensors that nodes read which were not computed."""
        read = set()
        for node in self.model.graph.node:
            if node.op_type != _WIDENS and node.output[0] not in self.done:
                read |= {self._source(name) for name in node.input}
        return {name for name in read if self._is_computed(name)}

    def _source(self, name: str) -> str:
        """What a tensor is widened from, else the tensor itself."""
        maker = self.makers.get(name)
        return maker.input[0] if maker is not None and maker.op_type == _WIDENS else name

    def _is_computed(self, name: str) -> bool:
        return name in self.held or (name in self.makers and self.makers[name].output[0] in self.done)

    def _computed(self, nodes: list[Any], wanted: list[str]) -> dict[str, NDArray[Any]]:
        read = {name for node in nodes for name in node.input}
        given = {name: value for name, value in self.held.items() if name in read}
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
            for name, value in given.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
        constants = [tensor for name, tensor in self.constants.items() if name in read]
        part = helper.make_model(
            helper.make_graph(nodes, "part", inputs, outputs, constants),
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
        )
        session = open_session(part.SerializeToString())
        batches = [dict(zip(wanted, session.run(wanted, batch), strict=True)) for batch in self._batches(given)]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in wanted}

    def _batches(self, given: Arrays) -> Iterator[dict[str, NDArray[Any]]]:
        """What each batch made; the first side may be one of several for each image, or of a batch as a whole."""
        batches = -(-self.count // self.batch)
        for i in range(batches):
            yield {
                name: np.ascontiguousarray(value[self._rows(len(value), i, batches)]) for name, value in given.items()
            }

    def _rows(self, rows: int, i: int, batches: int) -> slice:
        if rows % self.count:
            return slice(i * rows // batches, (i + 1) * rows // batches)
        each = self.batch * rows // self.count
        return slice(i * each, (i + 1) * each)


def constants_of(graph: Graph, quantization: Quantization | None, op: Op) -> list[Any]:
    """The weights of an operation and what belongs to them, as they are in the file."""
    whole = graph.workload
    shapes = {name: whole.shapes[name] for name in (*op.inputs, op.name)}
    workload = replace(whole, input=op.inputs[0], output=op.name, ops=(op,), shapes=shapes)
    if quantization is not None:
        quantization = replace(quantization, activations={op.name: _ANY_SCALE, **quantization.activations})
    alone = onnx.load_model_from_string(write_graph(Graph(workload=workload, weights=graph.weights), quantization))
    of_output = (f"{op.name}.scale", f"{op.name}.zero_point")
    return [tensor for tensor in alone.graph.initializer if tensor.name not in of_output]


class Lockstep:
    """A float network and a rounded one of the same operations, side by side, on as many of the images as fit."""

    def __init__(self, workload: Workload, exact: bytes, rounded: bytes, images: Floats) -> None:
        self.workload, self.images = workload, images
        self.places = {op.name: i for i, op in enumerate(workload.ops)}
        count = self._count(0)
        self.exact, self.rounded = (StepwiseRun(data, images[:count]) for data in (exact, rounded))

    def reach(self, op: Op) -> None:
        """From this operation on: more images, where all tensors that come are smaller."""
        count, held = self._count(self.places[op.name]), len(self.exact)
        if count >= 2 * held or held < count == len(self.images):
            for each in (self.exact, self.rounded):
                each.extend(self.images[held:count])

    def _count(self, place: int) -> int:
        shapes, ops = self.workload.shapes, self.workload.ops[place:]
        largest = max(sum(math.prod(shapes[name]) for name in (op.name, *op.inputs)) for op in ops)
        batch = shapes[self.workload.input][0]
        count = min(len(self.images), max(_HELD_BYTES // (4 * largest), 1) * batch)
        return max(count // batch, 1) * batch
