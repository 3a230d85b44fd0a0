"""Matrix products of two tensors, softmax and row normalization, as in transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compress.c99.layers import Normalize, Product, Softmax, SoftmaxOf, Step, Target, Tensor, Window
from compress.c99.qdq_graph import TensorQuantization, place
from compress.c99.reading.builder import Builder, unknown
from compress.c99.reading.elementwise import Numbers, constant_lines, in_source_order, period_of
from compress.c99.reading.values import Draft, Floats, Image, Value, row_by_row
from compress.c99.reading.weighted import check_sides, linear
from compress.c99.strided_copies import Index
from hw_profiles.errors import InputError

_ROOT_BITS = 62  # of the number whose root is taken
_SQUARE_BITS = 14  # of the square of an integer
_MASKED = np.float32(-1e30)  # in place of minus infinity
_ONE_PIXEL = Window(kernel_size=(1, 1))


def matrix_product(builder: Builder, node: Any) -> None:
    """MatMul: of constant weights, or of two tensors."""
    if any(map(builder.constant, node.input)):
        linear(builder, node)
        return
    (a, first), (b, second) = builder.held(node, 0), builder.held(node, 1)
    if min(first.index.ndim, second.index.ndim) < 2:
        raise InputError(f"{place(node)}: must multiply matrices, got {first.shape} and {second.shape}")
    rows, columns = first.index, second.index.swapaxes(-1, -2)
    leading = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    one, other = (_in_parts(each, leading) for each in (rows, columns))
    made: Image = (len(one), one.shape[1], other.shape[1])
    check_sides(node, _ONE_PIXEL, one.shape, other.shape, made)
    left, right = (builder.arranged(node, tensor, index, index.shape) for tensor, index in ((a, one), (b, other)))
    scale = np.float32(a.quantization.scale) * np.float32(b.quantization.scale)
    zeros = (a.quantization.zero_point, b.quantization.zero_point)

    def make(to: TensorQuantization, target: Target) -> tuple[Step, ...]:
        return (Product(zero_points=zeros, multiplier=float(scale / np.float32(to.scale)), to=target),)

    draft = Draft(node=node, inputs=(left, right), shape=made, make=make)
    index = row_by_row((*leading, made[1], made[2]))
    builder.values[node.output[0]] = Value(source=draft, index=index)


def _in_parts(index: Index, leading: tuple[int, ...]) -> Index:
    """Matrices one after the other, some of them repeated."""
    repeated = np.broadcast_to(index, (*leading, *index.shape[-2:]))
    return repeated.reshape(math.prod(leading), *index.shape[-2:])


def softmax(builder: Builder, node: Any) -> None:
    """Softmax along one axis, of integers or of float numbers that follow from single ones, such as of sums with a bias
    for each place."""
    floats = _floats_before(builder, node)
    tensor, value = (floats.tensor, builder.value(node)) if floats else builder.held(node)
    rank = value.index.ndim
    opset = builder.graph.opset
    axis = builder.graph.attributes(node).get("axis", -1 if opset >= 13 else 1) % rank
    if opset < 13 and axis != rank - 1:  # of all axes from this one on
        index = value.index.reshape(-1, int(np.prod(value.shape[axis:])))
        made = row_by_row(value.shape)
    else:
        index = np.moveaxis(value.index, axis, -1)
        made = np.moveaxis(row_by_row(index.shape), -1, axis)
        index = index.reshape(-1, value.shape[axis])
    image = (1, index.shape[0], index.shape[1])
    check_sides(node, _ONE_PIXEL, (1, 1, image[2]))
    source = builder.arranged(node, tensor, index, image)

    def make(to: TensorQuantization, target: Target) -> tuple[Step, ...]:
        if floats is not None:
            return (_softmax_of(floats, source, index, to, target),)
        steps = np.arange(256).astype(np.float32) * np.float32(source.quantization.scale)
        powers = np.exp(-steps.astype(np.float64)).astype(np.float32)
        return (Softmax(powers=powers, scale=to.scale, to=target),)

    draft = Draft(node=node, inputs=(source,), shape=image, make=make, range=(0.0, 1.0))
    builder.values[node.output[0]] = Value(source=draft, index=made)


def _floats_before(builder: Builder, node: Any) -> Floats | None:
    """What stands for numbers that were not quantized and that no ReLU limits; None of others."""
    source = builder.value(node).source
    if isinstance(source, Tensor) or node.input[0] in builder.wanted or source.clamps or source.floats is None:
        return None
    floats = source.floats
    bent = floats.lines is not None and not np.array_equal(floats.lines[0], floats.lines[1])
    return None if floats.of_channels or bent else floats


def _softmax_of(floats: Floats, source: Tensor, index: Index, to: TensorQuantization, target: Target) -> SoftmaxOf:
    numbers, lines = None if floats.numbers is None else floats.numbers(), None
    if floats.lines is not None:
        up, _, shift = (each[index.reshape(-1)] for each in floats.lines)
        shift = np.maximum(shift, _MASKED)
        period = period_of((up, shift), source.shape)
        lines = (np.ascontiguousarray(up[:period]), np.ascontiguousarray(shift[:period]))
    zero = source.quantization.zero_point
    return SoftmaxOf(numbers=numbers, lines=lines, zero_point=zero, scale=to.scale, to=target)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Normalized:
    """Rows of so many numbers that are normalized; for each number of the tensor, in the order in which it lies, its
    factor and what is added."""

    node: Any
    source: Tensor
    count: int
    epsilon: float
    factor: Numbers
    shift: Numbers

    def draft(self, builder: Builder) -> Draft:
        return Draft(
            node=self.node,
            inputs=(self.source,),
            shape=self.source.shape,
            make=self.steps,
            absorb=lambda node: self.absorbed(builder, node),
        )

    def absorbed(self, builder: Builder, node: Any) -> Draft | None:
        """This with constants multiplied and added, as a normalization of groups has them behind it."""
        at = next((i for i, name in enumerate(node.input) if name and not builder.constant(name)), 0)
        value = builder.value(node, at)
        made = constant_lines(builder, node, at, value.shape)
        if made is None or node.op_type == "PRelu" or not value.complete:
            return None
        factor, _, shift = (in_source_order(values, value.index) for values in made)
        return replace(self, factor=self.factor * factor, shift=self.shift * factor + shift).draft(builder)

    def steps(self, to: TensorQuantization, target: Target) -> tuple[Step, ...]:
        bits = (_ROOT_BITS - 1 - _SQUARE_BITS - 2 * self.count.bit_length()) // 2 * 2
        input_scale = float(self.source.quantization.scale)
        least = self.count**2 * self.epsilon / input_scale**2 * 2**bits
        while bits and least > 2 ** (_ROOT_BITS - 1):  # what outweighs the squares is precise enough with fewer bits
            bits, least = bits - 2, least / 4
        if least > 2 ** (_ROOT_BITS - 1):
            raise InputError(f"{place(self.node)}: its epsilon {self.epsilon:g} must not outweigh what it reads")
        factor = (self.factor * np.float32(2 ** (bits // 2)) / np.float32(to.scale)).astype(np.float32)
        shift = (self.shift / np.float32(to.scale)).astype(np.float32)
        inner, channels = _pattern(factor, shift)
        return (
            Normalize(
                factor=np.ascontiguousarray(factor[::inner][:channels]),
                shift=np.ascontiguousarray(shift[::inner][:channels]),
                count=self.count,
                inner=inner,
                bits=bits,
                least=max(1, round(least)),
                to=target,
            ),
        )


def _pattern(*arrays: Numbers) -> tuple[int, int]:
    """How many neighbors have the same numbers in all arrays, and after how many of those the arrays begin again.

    >>> _pattern(np.float32([1, 1, 2, 2, 1, 1, 2, 2]))
    (2, 2)
    """
    size = len(arrays[0])
    changes = [np.flatnonzero(each[1:] != each[:-1]) + 1 for each in arrays]
    inner = int(np.gcd.reduce([size, *np.concatenate(changes).tolist()]))
    short = [each[::inner] for each in arrays]
    count = len(short[0])
    for period in (n for n in range(1, count + 1) if count % n == 0):
        if all(np.array_equal(each[:-period], each[period:]) for each in short):
            return inner, period
    return inner, count


def layer_normalization(builder: Builder, node: Any) -> None:
    """LayerNormalization of the last axes."""
    shape = builder.value(node).shape
    axis = builder.graph.attributes(node).get("axis", -1) % len(shape)
    _normalized(builder, node, math.prod(shape[:axis]), shape[axis:])


def instance_normalization(builder: Builder, node: Any) -> None:
    """InstanceNormalization: each channel of one image."""
    shape = builder.value(node).shape
    if shape[0] != 1:
        raise InputError(f"{place(node)}: must read one image, got {shape}")
    _normalized(builder, node, shape[1], (shape[1], *[1] * (len(shape) - 2)))


def _normalized(builder: Builder, node: Any, rows: int, sides: tuple[int, ...]) -> None:
    """Each of so many rows; the constants have these ``sides``."""
    tensor, value = builder.held(node)
    numbers = [builder.graph.number_array(name) for name in node.input[1:] if name]
    given = [each.reshape(sides) for each in numbers if each is not None and each.size == math.prod(sides)]
    if not given or len(given) < len(numbers) or any(node.output[1:]):
        raise InputError(unknown(node))
    index = value.index.reshape(1, rows, -1)
    check_sides(node, _ONE_PIXEL, index.shape)
    factor, shift = (
        np.broadcast_to(each, value.shape).reshape(-1).astype(np.float32)
        for each in (given[0], given[1] if len(given) > 1 else np.zeros(sides))
    )
    made = _Normalized(
        node=node,
        source=builder.arranged(node, tensor, index, index.shape),
        count=index.shape[2],
        epsilon=float(builder.graph.attributes(node).get("epsilon", 1e-5)),
        factor=factor,
        shift=shift,
    )
    builder.values[node.output[0]] = Value(source=made.draft(builder), index=row_by_row(value.shape))
