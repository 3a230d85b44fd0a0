"""Elementwise functions, and sums and products of tensors and constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.c99.layers import INTEGERS, Binary, ChannelTables, Lines, Step, Table, Target, Tensor
from compress.c99.lookup_tables import POINTWISE, numbers
from compress.c99.qdq_graph import TensorQuantization, place
from compress.c99.reading.builder import Builder, unknown
from compress.c99.reading.values import Draft, Floats, Function, Value, in_program_order, program_image, program_index
from compress.c99.reading.weighted import batch_normalization, line
from compress.c99.strided_copies import OUTSIDE, Index, broadcast_steps
from hw_profiles.errors import InputError

Numbers = NDArray[np.float32]


def pointwise(builder: Builder, node: Any) -> None:
    """A node that computes numbers of one tensor, of one and constants, or of two tensors."""
    at = [i for i, name in enumerate(node.input) if name and not builder.constant(name)]
    name = node.output[0]
    if len(at) == 1:
        builder.values[name] = _of_one(builder, node, at[0])
        return
    value = _same_function(builder, node, at) if node.op_type in POINTWISE else None
    if value is not None:
        builder.values[name] = value
    elif len(at) == 2 and len(node.input) == 2 and node.op_type in ("Add", "Sub", "Sum", "Mul"):
        builder.values[name] = _of_two(builder, node)
    else:
        raise InputError(unknown(node))


def _of_one(builder: Builder, node: Any, at: int) -> Value:
    value = builder.value(node, at)
    source = value.source
    if isinstance(source, Draft) and source.node is not None and source.function is None:
        if _clamps(builder, node):
            return Value(source=replace(source, clamps=(*source.clamps, node)), index=value.index)
        made = None if source.clamps or source.absorb is None else source.absorb(node)
        if made is not None:
            return Value(source=made, index=value.index)
    if _scalars(builder, node, at):
        return _function(builder, node, at)
    return _lines(builder, node, at)


def _clamps(builder: Builder, node: Any) -> bool:
    """ReLU, Clip, or the larger or smaller of a tensor and a number."""
    numbers = [name for name in node.input if builder.graph.scalar(name) is not None]
    return node.op_type in ("Relu", "Clip") or (
        node.op_type in ("Max", "Min") and len(numbers) == len(node.input) - 1 == 1
    )


def _scalars(builder: Builder, node: Any, at: int) -> bool:
    arrays = [builder.graph.constants.get(name) for i, name in enumerate(node.input) if name and i != at]
    return node.op_type in POINTWISE and all(each is not None and each.size == 1 for each in arrays)


def _function(builder: Builder, node: Any, at: int) -> Value:
    """A table of all that is computed since the tensor was quantized."""
    value = builder.value(node, at)
    known = value.source.function if isinstance(value.source, Draft) else None
    known = known or _after_lines(builder, node, at)
    if known is None:
        tensor, value = builder.held(node, at)
        known = Function(tensor=tensor, start=builder.graph.source(node.input[at]), end="")
    function = replace(known, end=node.output[0])
    return Value(source=_function_draft(builder, node, function), index=value.index)


def _after_lines(builder: Builder, node: Any, at: int) -> Function | None:
    """The start of a function of what lines for each channel make, where that is not quantized."""
    source = builder.value(node, at).source
    if not isinstance(source, Draft) or source.floats is None or source.floats.lines is None:
        return None
    if node.input[at] in builder.wanted:
        return None
    tensor, lines = source.floats.tensor, source.floats.lines
    count = period_of(lines, tensor.shape)
    up, down, shift = (each[:count, None] for each in lines)
    x = (INTEGERS.astype(np.int32) - tensor.quantization.zero_point).astype(np.float32)
    given = np.clip(x * np.where(x < 0, down, up) + shift, *builder.limits(source))
    return Function(tensor=tensor, start=builder.graph.source(node.input[at]), end="", given=given.astype(np.float32))


def _function_draft(builder: Builder, node: Any, function: Function) -> Draft:
    before = function.tensor.quantization.to_float(INTEGERS)
    given = before if function.given is None else function.given

    def made() -> Numbers:
        return numbers(builder.graph, function.start, function.end, given.reshape(-1))

    def make(to: TensorQuantization, target: Target) -> tuple[Step, ...]:
        values = np.clip(to.of(made()), target.low, target.high)
        return (Table(values=values) if given.ndim == 1 else ChannelTables(values=values.reshape(given.shape)),)

    return Draft(
        node=node,
        inputs=(function.tensor,),
        shape=function.tensor.shape,
        make=make,
        function=function,
        floats=Floats(tensor=function.tensor, numbers=made, of_channels=given.ndim > 1),
    )


def _same_function(builder: Builder, node: Any, at: Sequence[int]) -> Value | None:
    """A node of several tensors that are all functions of the same number, such as x * sigmoid(x)."""
    others = [name for i, name in enumerate(node.input) if name and i not in at]
    if any(builder.graph.scalar(name) is None for name in others):
        return None
    values = [builder.value(node, i) for i in at]
    started = [_started(builder, node, i) for i in at]
    first = started[0]
    if first is None or not any(isinstance(value.source, Draft) and value.source.function for value in values):
        return None
    for value, each in zip(values, started, strict=True):
        same = each is not None and (each.tensor.name, each.start) == (first.tensor.name, first.start)
        if not same or not np.array_equal(value.index, values[0].index):
            return None
    function = replace(first, end=node.output[0])
    return Value(source=_function_draft(builder, node, function), index=values[0].index)


def _started(builder: Builder, node: Any, i: int) -> Function | None:
    """The function that an input of a node is, or may begin."""
    source = builder.value(node, i).source
    if isinstance(source, Tensor):
        return Function(tensor=source, start=builder.graph.source(node.input[i]), end="")
    return source.function or _after_lines(builder, node, i)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Lines:
    """For each number of a tensor, in the order in which it lies: what it is multiplied with, where it is negative too,
    and what is added."""

    node: Any
    source: Tensor
    index: Index
    up: Numbers
    down: Numbers
    shift: Numbers

    def draft(self, builder: Builder) -> Draft:
        scale = np.float32(self.source.quantization.scale)
        return Draft(
            node=self.node,
            inputs=(self.source,),
            shape=self.source.shape,
            make=self.steps,
            absorb=lambda node: self.absorbed(builder, node),
            floats=Floats(tensor=self.source, lines=(self.up * scale, self.down * scale, self.shift)),
        )

    def absorbed(self, builder: Builder, node: Any) -> Draft | None:
        at = next((i for i, name in enumerate(node.input) if name and not builder.constant(name)), 0)
        made = constant_lines(builder, node, at, self.index.shape)
        if made is None or node.op_type == "PRelu":
            return None
        factor, _, shift = (self._placed(values) for values in made)
        return replace(self, up=self.up * factor, down=self.down * factor, shift=self.shift * factor + shift).draft(
            builder
        )

    def _placed(self, values: Numbers) -> Numbers:
        return in_source_order(values, self.index)

    def steps(self, to: TensorQuantization, target: Target) -> tuple[Step, ...]:
        scale = np.float32(self.source.quantization.scale) / np.float32(to.scale)
        arrays = [(self.up * scale), (self.down * scale), (self.shift / np.float32(to.scale))]
        count = period_of(arrays, self.source.shape)
        up, down, shift = (np.ascontiguousarray(each[:count], np.float32) for each in arrays)
        zero = self.source.quantization.zero_point
        return (Lines(zero_point=zero, up=up, down=down, shift=shift, to=target),)


def period_of(arrays: Sequence[Numbers], shape: tuple[int, int, int]) -> int:
    """After how many numbers all arrays begin again: those of a pixel, of a row, or of the image."""
    for count in (1, shape[2], shape[1] * shape[2]):
        if all(np.array_equal(np.resize(each[:count], each.shape), each) for each in arrays):
            return count
    return len(arrays[0])


def in_source_order(values: Numbers, index: Index) -> Numbers:
    """Numbers for each place of a tensor, in the order in which it lies."""
    found = np.empty(index.size, np.float32)
    found[index.reshape(-1)] = values.reshape(-1)
    return found


def constant_lines(
    builder: Builder, node: Any, at: int, shape: tuple[int, ...]
) -> tuple[Numbers, Numbers, Numbers] | None:
    """Factor, factor of negative numbers and summand of a node for each number of a tensor; None of another node."""
    if node.op_type == "BatchNormalization":
        factor, shift = batch_normalization(builder, node)
        sides = (1, -1, *[1] * (len(shape) - 2))
        factor, shift = factor.reshape(sides), shift.reshape(sides)
        found = (factor, factor, shift)
    elif node.op_type == "PRelu" and at == 0:
        slope = builder.graph.number_array(node.input[1])
        assert slope is not None
        found = (np.ones_like(slope), slope, np.zeros_like(slope))
    else:
        values = builder.graph.number_array(node.input[1 - at]) if len(node.input) == 2 else None
        made = None if values is None else line(node.op_type, 1 - at, values)
        if made is None:
            return None
        found = (made[0], made[0], made[1])
    try:
        up, down, shift = (np.broadcast_to(each, shape) for each in found)
    except ValueError:
        return None
    return up, down, shift


def _lines(builder: Builder, node: Any, at: int) -> Value:
    tensor, value = builder.held(node, at)
    if not value.complete:
        source = builder.arranged(node, tensor, in_program_order(value.index), program_image(value.shape))
        value = Value(source=source, index=program_index(value.shape))
        tensor = source
    made = constant_lines(builder, node, at, value.shape)
    if made is None:
        raise InputError(unknown(node))
    up, down, shift = (in_source_order(each, value.index) for each in made)
    lines = _Lines(node=node, source=tensor, index=value.index, up=up, down=down, shift=shift)
    return Value(source=lines.draft(builder), index=value.index)


def joined_with_constants(builder: Builder, node: Any) -> None:
    """Concat of a tensor and constants, such as a class token: the tensor at its place, and the constants added to the
    zeros beside it."""
    at = [i for i, name in enumerate(node.input) if not builder.constant(name)]
    if len(at) != 1:
        raise InputError(f"{place(node)}: must join one tensor with constants, got {len(at)}")
    tensor, value = builder.held(node, at[0])
    places, numbers = list[Index](), list[Numbers]()
    for name in node.input:
        given = builder.graph.number_array(name)
        places.append(value.index if given is None else np.full(given.shape, OUTSIDE))
        numbers.append(np.zeros(value.shape, np.float32) if given is None else given)
    axis = builder.graph.attributes(node).get("axis", 0)
    index = np.concatenate(places, axis)
    order = program_index(index.shape)
    source = builder.arranged(node, tensor, in_program_order(index), program_image(index.shape))
    ones = np.ones(index.size, np.float32)
    shift = in_source_order(np.concatenate(numbers, axis), order)
    lines = _Lines(node=node, source=source, index=order, up=ones, down=ones, shift=shift)
    builder.values[node.output[0]] = Value(source=lines.draft(builder), index=order)


def _of_two(builder: Builder, node: Any) -> Value:
    """Two tensors, one of which may be repeated along axes; the output lies as the first complete one of them."""
    (a, first), (b, second) = builder.held(node, 0), builder.held(node, 1)
    try:
        shape = np.broadcast_shapes(first.shape, second.shape)
    except ValueError:
        raise InputError(f"{place(node)}: its inputs must broadcast, got {first.shape} and {second.shape}") from None
    indices = [np.broadcast_to(each.index, shape) for each in (first, second)]
    order = next(
        (each.index for each in (first, second) if each.shape == shape and each.complete), program_index(shape)
    )
    image = next((t.shape for t, v in ((a, first), (b, second)) if v.index is order), program_image(shape))
    flat = [np.empty(order.size, np.int64) for _ in indices]
    for each, index in zip(flat, indices, strict=True):
        each[order.reshape(-1)] = index.reshape(-1)
    loops = broadcast_steps(flat[0], flat[1])
    if loops is None:
        a, flat[0] = _arranged(builder, node, a, flat[0], image)
        b, flat[1] = _arranged(builder, node, b, flat[1], image)
        loops = broadcast_steps(flat[0], flat[1])
    if loops is None:
        raise InputError(f"{place(node)}: unsupported broadcasting")
    sizes, *steps = loops
    kind = {"Add": "add", "Sum": "add", "Sub": "sub", "Mul": "mul"}[node.op_type]

    def make(to: TensorQuantization, target: Target) -> tuple[Step, ...]:
        return (
            Binary(
                kind=kind,
                before=(a.quantization, b.quantization),
                scale=to.scale,
                to=target,
                sizes=sizes,
                steps=(steps[0], steps[1]),
            ),
        )

    return Value(source=Draft(node=node, inputs=(a, b), shape=image, make=make), index=order)


def _arranged(
    builder: Builder, node: Any, tensor: Tensor, flat: Index, image: tuple[int, int, int]
) -> tuple[Tensor, Index]:
    """An operand as it is read, where it lies in another order."""
    made = builder.arranged(node, tensor, flat.reshape(image), image)
    return made, np.arange(len(flat))
