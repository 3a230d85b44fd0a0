"""Reads an ONNX file as a Workload: float, QDQ, or QLinear operations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.errors import InputError
from hw_profiles.network.dead_channels import without_dead_channels
from hw_profiles.network.simplify import MERGED, simplify
from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.network.workload import InputShape, Op, Shape, Workload, WorkloadBuilder
from hw_profiles.onnx_io.graph_edges import check_order, check_straight, needed_nodes, reads
from hw_profiles.onnx_io.input_sides import input_shapes
from hw_profiles.onnx_io.ops import Node, read_op
from hw_profiles.onnx_io.packed_weights import WIDENING, widened_format
from hw_profiles.onnx_io.patterns import Pattern, find_patterns
from hw_profiles.onnx_io.quantized_ops import as_float, format_of
from hw_profiles.onnx_io.rewrites.normal_form import inlined
from hw_profiles.onnx_io.rewrites.stored_weights import stored_weights
from hw_profiles.onnx_io.shapes import OWN_DOMAINS, Constant, Tensors, check_shape, read_constant, where
from hw_profiles.onnx_io.untrusted_file import load_model, read_metadata, shown

__all__ = ["read_metadata", "read_onnx", "read_without_dead_channels"]

_UNCHANGED = ("Identity", "Dropout")
_QUANTIZERS = ("DequantizeLinear", "QuantizeLinear")
_KEEP_SHAPE = (
    "Cast", "Expand", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Pad", "Resize", "Upsample", "Tile",
)  # fmt: skip


def read_onnx(source: Path | bytes, input_shape: InputShape = None) -> Workload:
    """The workload of a file or its bytes, batch 1: nothing is run, and no weight is looked at.

    An operation is called after the tensor that its node makes. One that nobody knows is of kind ``other``. What works
    out shapes is folded and leaves no operation; a batch normalization after a convolution is folded into it.

    Args:
        source: the file, or what stands in it.
        input_shape: (C, H, W) where the file leaves sides of its input open; {name: sides} where several are open.

    Raises:
        InputError: not an ONNX file, weights outside it, no input, sides that are open or that contradict
            ``input_shape``, or a graph that cannot run; what and where is named.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> read_onnx(write_onnx(preset("resnet8").workload())).macs
    12501632
    """
    return read_with_names(load_model(source), input_shape)[0]


def read_without_dead_channels(source: Path | bytes, input_shape: InputShape = None) -> Workload:
    """As :func:`read_onnx`, without the channels that change nothing, see
    :func:`hw_profiles.network.dead_channels.without_dead_channels`.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> read_without_dead_channels(write_onnx(preset("resnet8").workload())).macs
    12501632
    """
    model = load_model(source)
    workload, _ = read_with_names(model, input_shape)
    return without_dead_channels(workload, stored_weights(model, workload))


@dataclass(frozen=True, slots=True)
class Names:
    """Which tensors of a file the tensors of its workload are: ``alias`` has the operation that each one comes of, and
    ``merged`` the operation or tensor that now stands for one that is gone."""

    alias: Mapping[str, str]
    merged: Mapping[str, str]


def read_with_names(model: Any, input_shape: InputShape = None) -> tuple[Workload, Names]:
    """What :func:`read_onnx` reads of a model that was opened, and how its names are those of the file."""
    try:
        return _read(model, input_shape)
    except UnicodeDecodeError:
        raise InputError("names in the ONNX file are not valid UTF-8") from None


def _read(model: Any, input_shape: InputShape) -> tuple[Workload, Names]:
    model = inlined(model)
    check_order(model.graph)
    nodes = needed_nodes(model.graph)
    reader = _Reader(model, nodes, input_shape)
    for node in nodes:
        try:
            reader.add(node)
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
            raise InputError(f"{where(node)}: its attributes do not fit its inputs ({type(error).__name__})") from None
    workload, merged = reader.workload()
    return workload, Names(reader.alias, merged)


class _Reader:
    def __init__(self, model: Any, nodes: Sequence[Any], input_shape: InputShape) -> None:
        graph = model.graph
        self.tensors = Tensors(model)
        inputs = [i for i in graph.input if i.name not in self.tensors.constants]
        self.inputs = [value.name for value in inputs]
        for value, sides in zip(inputs, input_shapes(inputs, input_shape), strict=True):
            self.tensors.add(value.name, sides, value.type.tensor_type.elem_type)
        self.outputs = [o.name for o in graph.output]
        self.consumers = Counter([*self.outputs, *(name for node in nodes for name in reads(node))])
        self.patterns = find_patterns(nodes, self.outputs, set(self.tensors.constants))
        self.inner = {name for pattern in self.patterns.values() for name in pattern.inner}
        self.alias = {name: name for name in self.inputs}
        self.ops: dict[str, Op] = {}
        self.formats: dict[str, TensorFormat] = {}
        self.origins: dict[str, str] = {}  # constant -> the tensor of the file that it is made of, as it is or turned
        self.owners: dict[str, str] = {}  # tensor of the file -> the weight of the operation that reads it first
        self.biases: dict[str, set[str]] = {}  # that weight -> the other constants of its operation
        self.stored: dict[str, int] = {}  # integer types of the tensors between QuantizeLinear and DequantizeLinear
        for name in self.inputs:
            self._mark_float(name, name)

    def add(self, node: Any) -> None:
        check_straight(node)
        node, output_type = as_float(node, self.tensors)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            self.tensors.add_constant(node.output[0], _constant(node, attributes))
            return
        outputs = [name for name in node.output if name]
        constants = self.tensors.folded(node, list(reads(node)), attributes)
        if constants:
            held = [name for name in reads(node) if name in self.tensors.constants]
            for name, constant in zip(outputs, constants, strict=True):
                self.tensors.add_constant(name, self._constant(node, constant))
                self.origins[name] = self._origin(max(held, key=self._count, default=name))
            return
        unread = [name for name in outputs if not self.consumers[name]]
        for name, (shape, data_type) in zip(outputs, self.tensors.inferred(node, unread), strict=True):
            self.tensors.add(name, shape, data_type)
        self._add_op(node, attributes)
        if output_type is not None:
            self._store(outputs[0], output_type)

    def workload(self) -> tuple[Workload, dict[str, str]]:
        output = self.alias.get(self.outputs[0])
        if output is None:
            raise InputError(f"output {shown(self.outputs[0])} does not depend on the input")
        shapes = {op.name: self._shape(op) for op in self.ops.values()}
        kept = {self.alias.get(name, name) for name in (*self.stored, *self.outputs)}
        for op in self.ops.values():
            if op.inputs == (f"{op.name}.pool",) and op.name in self.formats:
                self.formats[op.inputs[0]] = self.formats[op.name]
        ops, gone = simplify(list(self.ops.values()), shapes, kept)
        for old, new in gone.items():
            self._rename_formats(old, new)
        builder = WorkloadBuilder(self.inputs[0], self.tensors.shapes[self.inputs[0]])
        for name in self.inputs[1:]:
            builder.further_input(name, self.tensors.shapes[name])
        for op in ops:
            builder.append(op, shapes[op.name])
        built = builder.build(gone.get(output, output))
        further = self._further_outputs(built, gone)
        return replace(built, formats=MappingProxyType(self.formats), further_outputs=further), gone

    def _further_outputs(self, built: Workload, gone: Mapping[str, str]) -> tuple[str, ...]:
        """What the operations make of the other outputs; one that is a constant is made by none."""
        names = [self.alias[name] for name in self.outputs[1:] if name in self.alias]
        found = dict.fromkeys(gone.get(name, name) for name in names)
        return tuple(name for name in found if name != built.output and name in built.shapes)

    def _origin(self, name: str) -> str:
        return self.origins.get(name, name)

    def _count(self, name: str) -> int:
        return math.prod(self.tensors.constants[name].shape)

    def _constant(self, node: Any, constant: Constant) -> Constant:
        """What is known of weights goes with them through the quantizers, and through what widens them."""
        if node.op_type in WIDENING:
            return replace(
                constant, widened=widened_format(node, [self.tensors.constants[n] for n in reads(node)], constant)
            )
        if not self._passes_on(node):
            return constant
        source = self.tensors.constants[node.input[0]]
        if node.op_type == "DequantizeLinear":
            scales = self.tensors.constants[node.input[1]].shape
            return Constant(source.shape, source.data_type, None, math.prod(scales) > 1, TensorProto.FLOAT)
        if node.op_type == "QuantizeLinear":
            return Constant(source.shape, self._quantized_type(node))
        return source

    def _quantized_type(self, node: Any) -> int:
        zero_point = self.tensors.constants.get(node.input[2]) if len(node.input) > 2 else None
        declared = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
        return zero_point.data_type if zero_point is not None else declared or TensorProto.UINT8

    def _add_op(self, node: Any, attributes: dict[str, Any]) -> None:
        output = node.output[0]
        if output in self.inner:
            self.alias[output] = output
        elif output in self.patterns:
            self._pattern(output, self.patterns[output])
        elif self._passes_on(node) or self._same(node, attributes):
            self._pass_on(node)
        else:
            self._outputs(node, attributes)

    def _passes_on(self, node: Any) -> bool:
        """Whether a node makes nothing else than the numbers that it reads first, as far as anybody reads it."""
        is_unchanged = node.op_type in _UNCHANGED and node.domain in OWN_DOMAINS
        return node.op_type in _QUANTIZERS or (is_unchanged and not any(self.consumers[n] for n in node.output[1:]))

    def _same(self, node: Any, attributes: dict[str, Any]) -> bool:
        """Whether a node that may change nothing changes nothing."""
        if node.op_type not in _KEEP_SHAPE or node.domain not in OWN_DOMAINS:
            return False
        source, output, shapes = node.input[0], node.output[0], self.tensors.shapes
        if shapes.get(source) != shapes[output] or self._turns(node, attributes):
            return False
        return node.op_type != "Cast" or self.tensors.types[source] == self.tensors.types[output]

    def _turns(self, node: Any, attributes: dict[str, Any]) -> bool:
        """Whether a node may move numbers where it keeps the shape: backwards, sideways, or out of a part."""
        if node.op_type == "Resize":
            return bool(attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize")
        place = {"Slice": 4, "Pad": 1}.get(node.op_type)
        if place is None:
            return False
        given = self.tensors.integers(node.input[place]) if len(node.input) > place else attributes.get("pads", ())
        return given is None or min(given, default=0) < 0

    def _pass_on(self, node: Any) -> None:
        self.alias[node.output[0]] = self.alias[node.input[0]]
        if node.op_type == "QuantizeLinear":
            self._store(node.output[0], self._quantized_type(node))
        elif node.op_type != "DequantizeLinear" and node.input[0] in self.stored:
            self._store(node.output[0], self.stored[node.input[0]])

    def _pattern(self, output: str, pattern: Pattern) -> None:
        shapes = [self.tensors.shape(name) for name in pattern.constants]
        weight = shapes[0] if shapes else ()
        x = (self.alias[pattern.source],)
        self._emit(output, Op(output, "activation", x, weight, len(shapes) > 1, function=pattern.function))

    def _outputs(self, node: Any, attributes: dict[str, Any]) -> None:
        x = tuple(self.alias[name] for name in reads(node) if name in self.tensors.shapes)
        first, *others = (name for name in node.output if name)
        item = Node(first, node.op_type, tuple(node.input), x, self.tensors.shapes[first], attributes, self.tensors)
        self._emit_op(item, read_op(item))
        for name in others:
            if self.consumers[name]:
                kind, function = ("slice", "none") if node.op_type == "Split" else ("other", node.op_type)
                self._emit(name, Op(name, kind, x, function=function))
        data_type = next((self.stored[name] for name in item.inputs if name in self.stored), None)
        for name in node.output:
            if data_type is not None and name in self.alias:
                self._store(name, data_type)

    def _emit_op(self, item: Node, op: Op) -> None:
        if op.kind == "global_avg_pool" and len(item.shape) == 2:
            self._emit(f"{op.name}.pool", replace(op, name=f"{op.name}.pool"))
            op = Op(op.name, "flatten", (f"{op.name}.pool",))
        constants = [name for name in item.inputs if name in self.tensors.constants]
        if op.kind == "other":
            op, constants = self._with_all_weights(op, constants)
        if op.weight_shape:
            op = self._sharing(op, constants)
        self._emit(item.name, op)
        if op.weight_shape:
            for target, name in zip((op.weight, op.bias_name), constants, strict=False):
                self._weight_format(target, name)

    def _with_all_weights(self, op: Op, constants: list[str]) -> tuple[Op, list[str]]:
        """An operation that nobody knows has as weights all numbers of its constants that no other one counts."""
        several = [name for name in dict.fromkeys(constants) if self._count(name) > 1]
        found = [name for name in several if self._origin(name) not in self.owners]
        count = sum(map(self._count, found))
        if not count:
            return op, []
        self.owners.update((self._origin(name), op.weight) for name in found)
        return replace(op, weight_shape=(count,)), [max(found, key=self._count)]

    def _sharing(self, op: Op, constants: list[str]) -> Op:
        """The operation, with the names of the tensors that an earlier one reads too. Vectors alone do not count: of an
        untrained network exporters merge those that are equal."""
        if op.kind in MERGED and constants:
            owner = self.owners.setdefault("\0".join(map(self._origin, constants)), op.bias_name)
            return op if owner == op.bias_name else replace(op, shared_bias=owner)
        if not constants or sum(side > 1 for side in op.weight_shape) < 2:
            return op
        weight, *others = constants
        owner = self.owners.setdefault(self._origin(weight), op.weight)
        own = {self._origin(name) for name in others}
        self.biases.setdefault(owner, own)
        if owner == op.weight:
            return op
        same = bool(op.bias) and self.biases[owner] == own
        return replace(op, shared_weight=owner, shared_bias=f"{owner.removesuffix('.weight')}.bias" if same else "")

    def _emit(self, output: str, op: Op) -> None:
        self.ops[op.name] = op
        self.alias[output] = op.name
        self._mark_float(op.name, output)

    def _mark_float(self, name: str, output: str) -> None:
        data_type = self.tensors.types.get(output, TensorProto.FLOAT)
        if data_type != TensorProto.FLOAT:
            self.formats[name] = format_of(data_type)

    def _store(self, output: str, data_type: int) -> None:
        self.stored[output] = data_type
        self.formats[self.alias[output]] = format_of(data_type)

    def _weight_format(self, target: str, name: str) -> None:
        constant = self.tensors.constants[name]
        if constant.widened is not None:
            self.formats[target] = constant.widened
        elif constant.data_type != TensorProto.FLOAT:
            self.formats[target] = replace(format_of(constant.data_type), per_channel=constant.per_channel)

    def _rename_formats(self, old: str, new: str) -> None:
        """An operation that is gone leaves its output to another one, and its constant as that one's bias."""
        for source, target in ((old, new), (f"{old}.weight", f"{new}.bias")):
            if source in self.formats:
                self.formats[target] = self.formats.pop(source)

    def _shape(self, op: Op) -> Shape:
        if op.name in self.tensors.shapes:
            shape = self.tensors.shapes[op.name]
        else:
            shape = (1, self.tensors.shapes[op.inputs[0]][1], 1, 1)
        if min(shape, default=1) < 1:
            raise InputError(f"tensor {shown(op.name)}: every side must be at least 1, got {shape}")
        return shape


def _constant(node: Any, attributes: dict[str, Any]) -> Constant:
    for key, value in attributes.items():
        if key == "value":
            return read_constant(value)
        if key == "sparse_value":
            held = value.values
            return Constant(check_shape(held.name, value.dims, held.data_type), held.data_type)
        if key in ("value_int", "value_ints", "value_float", "value_floats"):
            array = np.asarray(value, np.int64 if "int" in key else np.float32)
            return read_constant(numpy_helper.from_array(array, node.output[0]))
    raise InputError(f"{where(node)}: a constant must be a tensor or numbers, got {', '.join(attributes) or 'nothing'}")
