"""Stores weights of an ONNX file in fewer bits, with the operations that restore them when it is loaded.

ONNX Runtime runs these operations once, when it loads the file: it then holds the weights in float32 and computes with
them as with any others. So what gets smaller is the file; memory and latency stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.onnx_io.graph_edges import check_valid
from hw_profiles.onnx_io.rewrites.normal_form import normal_form
from hw_profiles.onnx_io.untrusted_file import load_model, shown

Floats = NDArray[np.float32]

_READERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_LEAST_IR = 10  # the first that knows integers of 4 bits


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A float32 weight as the file names it; ``axis`` counts its output channels."""

    name: str
    value: Floats
    axis: int = 0

    @property
    def rows(self) -> Floats:
        """(output channels, weights of each)."""
        moved = np.moveaxis(self.value, self.axis, 0)
        return np.ascontiguousarray(moved.reshape(len(moved), -1))

    def shaped(self, rows: Floats) -> Floats:
        """The inverse of :attr:`rows`."""
        moved = np.moveaxis(self.value, self.axis, 0)
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved.shape), 0, self.axis))


@dataclass(frozen=True, slots=True)
class Stored:
    """What is in the file for one weight: constants, and nodes of which the last makes the weight."""

    constants: Sequence[Any]
    nodes: Sequence[Any]

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return sum(part.ByteSize() + _FRAMING for part in (*self.constants, *self.nodes))


_FRAMING = 4  # tag and length of a message in the file


class Codec(Protocol):
    """A way to store a weight. ``opset``: the first that has the operations which widen it."""

    @property
    def opset(self) -> int:
        """The first opset that has its operations."""

    def rounded(self, rows: Floats) -> Floats:
        """The values that (output channels, weights of each) have after they were stored."""

    def stored(self, weight: Weight) -> Stored:
        """Constants and nodes whose result are the weight's rounded values, exactly."""

    def format(self, columns: int) -> TensorFormat:
        """The format of a weight with so many values for each output channel."""


def store(source: Path | str | bytes, codec: Codec, chosen: Callable[[Weight], bool] | None = None) -> bytes:
    """The file with each ``chosen`` weight of a convolution or linear layer stored by ``codec``, where that is smaller.

    Raises:
        InputError: not an ONNX file, one that cannot be brought to the opset of the code, or one in which there is
            nothing to store.
    """
    model = normal_form(load_model(source), opset=codec.opset)
    found = {}
    for weight in weights_of(model.graph):
        if chosen is None or chosen(weight):
            stored = codec.stored(weight)
            if stored.bytes < 4 * weight.value.size:
                found[weight.name] = stored
    if not found:
        raise InputError("the file has no float32 weights of convolutions or linear layers that would get smaller")
    return written(replaced(model, found))


def weights_of(graph: Any) -> list[Weight]:
    """The float32 weights of two and more axes that convolutions and linear layers read, in their order.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> model = load_model(write_onnx(preset("resnet8").workload()))
    >>> [weight.rows.shape for weight in weights_of(model.graph)][-2:]
    [(64, 32), (10, 64)]
    """
    constants = tensors_of(graph)
    found: dict[str, Weight] = {}
    for node in graph.node:
        name = node.input[1] if node.op_type in _READERS and len(node.input) > 1 else ""
        tensor = constants.get(name)
        if tensor is None or name in found or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        value = numpy_helper.to_array(tensor)
        if not np.isfinite(value).all():
            raise InputError(f"weight {shown(name)}: every number must be finite")
        if value.size:
            found[name] = Weight(name, value, _axis(node, value.ndim))
    return list(found.values())


def tensors_of(graph: Any) -> dict[str, Any]:
    """The constant tensors of a graph by name, for reading and for changing them."""
    made = {node.output[0]: node.attribute[0].t for node in graph.node if _is_tensor(node)}
    return {tensor.name: tensor for tensor in graph.initializer} | made


def replaced(model: Any, stored: Mapping[str, Stored]) -> Any:
    """The model with other constants for these weights; it is changed in place."""
    graph = model.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in stored]
    added = {tensor.name: tensor for each in stored.values() for tensor in each.constants}
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | {tensor.name for tensor in kept}
    clash = taken & (added.keys() | {node.output[0] for each in stored.values() for node in each.nodes[:-1]})
    if clash:
        raise InputError(f"tensor {shown(min(clash))}: the name is already in use, and a stored weight needs it")
    nodes = [node for each in stored.values() for node in each.nodes]
    nodes += [node for node in graph.node if not (_is_tensor(node) and node.output[0] in stored)]
    inputs = [value for value in graph.input if value.name not in stored]
    for field, values in (("initializer", [*kept, *added.values()]), ("node", nodes), ("input", inputs)):
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    return model


def written(model: Any) -> bytes:
    """The bytes of the model, once it is valid."""
    model.ir_version = max(model.ir_version, _LEAST_IR)
    check_valid(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def constant(name: str, value: Any) -> Any:
    """A constant of the file."""
    return numpy_helper.from_array(np.asarray(value), name)


def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    """A node without a name of its own, which would only take bytes."""
    return helper.make_node(kind, inputs, [output], **attributes)


def reshaped(weight: Weight, rows: str) -> tuple[list[Any], list[Any]]:
    """Constants and nodes that make a weight of its rows, however these are shaped."""
    moved = np.moveaxis(weight.value, weight.axis, 0).shape
    axes = range(weight.value.ndim)
    back = sorted(axes, key=[weight.axis, *(axis for axis in axes if axis != weight.axis)].__getitem__)
    turned = weight.axis > 0
    final = f"{weight.name}.turned" if turned else weight.name
    nodes = [node("Reshape", [rows, f"{weight.name}.shape"], final)]
    if turned:
        nodes.append(node("Transpose", [final], weight.name, perm=back))
    return [constant(f"{weight.name}.shape", np.array(moved, np.int64))], nodes


def _is_tensor(node: Any) -> bool:
    return node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].HasField("t")


def _axis(node: Any, axes: int) -> int:
    """Where a weight counts output channels."""
    if node.op_type == "Gemm":
        turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return 0 if turned else 1
    return {"Conv": 0, "ConvTranspose": 1}.get(node.op_type, axes - 1)
