"""The numpy reference of a generated program: int32 sums, one float32 multiply, round half to even, saturate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.c99.layers import (
    PARTS,
    AveragePool,
    Binary,
    ChannelTables,
    Concat,
    Convolution,
    Integers,
    Interpolate,
    Lines,
    MaxPool,
    MeanOf,
    Move,
    Network,
    Normalize,
    Product,
    ProgramLayer,
    Softmax,
    SoftmaxOf,
    Step,
    Table,
    Target,
    Window,
)  # fmt: skip
from compress.c99.lookup_tables import EIGHTHS, PARTS_OF_EIGHTHS
from hw_profiles.errors import InputError


def run_layers(network: Network, image: Integers) -> dict[str, Integers]:
    """Every tensor of the network for one input (height, width, channels), by name.

    >>> from compress.c99.network_reader import read_network
    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from hw_profiles.network.quantization import fixed_quantization
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> network = read_network(write_onnx(w, quantization=fixed_quantization(w)))
    >>> run_layers(network, np.zeros(network.input.shape, np.int8))[network.output.name].shape
    (1, 1, 10)
    """
    values = {network.input.name: image}
    for layer in network.layers:
        values[layer.output.name] = run_layer(layer, [values[t.name].reshape(t.shape) for t in layer.inputs])
    return values


def run_layer(layer: ProgramLayer, inputs: list[Integers]) -> Integers:
    """The output (height, width, channels) of one layer."""
    shape = layer.output.shape
    for step in layer.steps:
        inputs = [_RUN[type(step)](step, inputs, shape)]
    return inputs[0]


def quantize_images(network: Network, x: NDArray[Any]) -> Integers:
    """Network inputs, as the ONNX file takes them, as the integers (N, H, W, C) that the program reads.

    Raises:
        InputError: images of another shape, or numbers where the file takes integers.
    """
    stored, source = network.input_values, network.input
    if x.shape[1:] != stored.index.shape[1:]:
        sides = ", ".join(map(str, stored.index.shape[1:]))
        raise InputError(f"images must be (N, {sides}), got {x.shape}")
    if network.integer_ends[0]:
        kind = np.uint8 if stored.shift else np.int8
        if x.dtype != kind:
            raise InputError(f"the file takes integers ({np.dtype(kind)}) as input, got {x.dtype}")
        integers = (x.astype(np.int16) - stored.shift).astype(np.int8)
    else:
        integers = source.quantization.of(x.astype(np.float32))
    images: Integers = np.stack([stored.to_program(image, source.shape) for image in integers])
    return images


def _requantized(values: NDArray[np.float32], to: Target) -> Integers:
    zero = np.float32(to.zero_point)
    steps = np.rint(np.clip(values, np.float32(to.low) - zero, np.float32(to.high) - zero)) + zero
    result: Integers = steps.astype(np.int8)
    return result


def _patches(image: Integers, window: Window, fill: float, shape: tuple[int, int, int]) -> NDArray[Any]:
    """(rows, columns, kernel height, kernel width, channels) of the numbers under each window."""
    height, width, channels = image.shape
    (kh, kw), (top, left, _, _) = window.kernel_size, window.padding
    rows = np.arange(shape[0])[:, None] * window.stride[0] + np.arange(kh)[None, :] * window.dilation[0]
    columns = np.arange(shape[1])[:, None] * window.stride[1] + np.arange(kw)[None, :] * window.dilation[1]
    below, right = max(int(rows.max()) + 1 - top - height, 0), max(int(columns.max()) + 1 - left - width, 0)
    around = ((top, below), (left, right), (0, 0))
    padded = np.pad(image.astype(np.float64), around, constant_values=fill)
    found: NDArray[Any] = padded[rows[:, None, :, None], columns[None, :, None, :]]
    return found.reshape(shape[0], shape[1], kh, kw, channels)


def _convolution(step: Convolution, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    patches = _patches(inputs[0], step.window, step.zero_point, shape) - step.zero_point
    rows, columns, kh, kw, channels = patches.shape
    groups, outputs = step.groups, len(step.weight) // step.groups
    x = patches.reshape(rows * columns, kh * kw, groups, channels // groups).transpose(2, 0, 1, 3)
    w = step.weight.reshape(groups, outputs, kh * kw * channels // groups).astype(np.float64)
    sums = x.reshape(groups, rows * columns, -1) @ w.transpose(0, 2, 1)  # whole numbers below 2**53: exact
    exact = sums.transpose(1, 0, 2).reshape(rows, columns, -1).astype(np.int32) + step.bias
    return _requantized(exact.astype(np.float32) * step.multiplier, step.to)


def _average_pool(step: AveragePool, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    patches = _patches(inputs[0], step.window, np.nan, shape) - step.before.zero_point
    sums = np.nansum(patches, axis=(2, 3)).astype(np.float32)
    pixels = np.full(shape, patches[0, 0, :, :, 0].size) if step.whole else np.isfinite(patches).sum(axis=(2, 3))
    scale = np.float32(step.before.scale) / (np.float32(step.scale) * pixels.astype(np.float32))
    return _requantized(sums * scale, step.to)


def _mean_of(step: MeanOf, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    patches = _patches(inputs[0], step.window, 0, shape).astype(np.int32)
    if step.lines is None:
        assert step.numbers is not None
        values = step.numbers[patches + 128]
    else:
        up, down, shift = step.lines
        x = (patches - step.zero_point).astype(np.float32)
        values = x * np.where(x < 0, down, up) + shift
    limited = np.clip(values, np.float32(step.lowest), np.float32(step.highest))
    flat = limited.reshape(*shape[:2], -1, shape[2])
    sums: NDArray[np.float32] = np.add.accumulate(flat, axis=2, dtype=np.float32)[
        :, :, -1
    ]  # one after the other, as a loop adds
    return _requantized(sums / np.float32(flat.shape[2]) / np.float32(step.scale), step.to)


def _max_pool(step: MaxPool, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    largest: Integers = _patches(inputs[0], step.window, -128, shape).max(axis=(2, 3)).astype(np.int8)
    return largest


def _strided(values: Integers, sizes: tuple[int, ...], steps: tuple[int, ...], start: int = 0) -> Integers:
    flat = np.ascontiguousarray(values).reshape(-1)[start:]
    found: Integers = np.lib.stride_tricks.as_strided(flat, sizes, [s * flat.itemsize for s in steps])
    return found


def _binary(step: Binary, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    operands = zip(step.before, inputs, step.steps, strict=True)
    a, b = (q.to_float(_strided(x, step.sizes, steps)) for q, x, steps in operands)
    values = {"add": a + b, "sub": a - b, "mul": a * b}[step.kind] / np.float32(step.scale)
    return _requantized(values, step.to).reshape(shape)


def _lines(step: Lines, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    x = (inputs[0].reshape(-1, len(step.up)).astype(np.int32) - step.zero_point).astype(np.float32)
    return _requantized(x * np.where(x < 0, step.down, step.up) + step.shift, step.to).reshape(shape)


def _table(step: Table, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    return _looked_up(step.values, inputs[0])


def _channel_tables(step: ChannelTables, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    channels = len(step.values)
    found: Integers = step.values[np.arange(channels), inputs[0].reshape(-1, channels).astype(np.int16) + 128]
    return found.reshape(shape)


def _softmax(step: Softmax, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    x = inputs[0].astype(np.int32)
    powers = step.powers[x.max(axis=2, keepdims=True) - x]
    total = np.add.accumulate(powers, axis=2, dtype=np.float32)[..., -1:]  # one after the other, as a loop adds
    return _requantized(powers / total / np.float32(step.scale), step.to)


def _softmax_of(step: SoftmaxOf, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    x = inputs[0].reshape(-1, shape[2])
    if step.lines is None:
        assert step.numbers is not None
        given = step.numbers[x.astype(np.int16) + 128]
    else:
        up, shift = (np.resize(each, x.shape) for each in step.lines)
        given = (x.astype(np.int32) - step.zero_point).astype(np.float32) * up + shift
    steps = np.minimum((given.max(axis=1, keepdims=True) - given) * np.float32(2048), np.float32(65535)).astype(
        np.int32
    )
    powers = EIGHTHS[steps >> 8] * PARTS_OF_EIGHTHS[steps & 255]
    total = np.add.accumulate(powers, axis=1, dtype=np.float32)[:, -1:]  # one after the other, as a loop adds
    return _requantized(powers / total / np.float32(step.scale), step.to).reshape(shape)


def _product(step: Product, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    a, b = (x.astype(np.int64) - zero for x, zero in zip(inputs, step.zero_points, strict=True))
    sums = (a.astype(np.float64) @ b.astype(np.float64).swapaxes(1, 2)).astype(np.float32)  # whole numbers: exact
    return _requantized(sums * np.float32(step.multiplier), step.to)


def _normalize(step: Normalize, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    x = inputs[0].reshape(-1, step.count).astype(np.int64)
    sums, squares = x.sum(1), np.square(x).sum(1)
    spread = step.count * squares - sums * sums
    roots = np.array([math.isqrt((int(each) << step.bits) + step.least) for each in spread], np.float32)
    centered = (step.count * x - sums[:, None]).astype(np.float32)
    factor, shift = (
        np.resize(np.repeat(each, step.inner), x.size).reshape(x.shape) for each in (step.factor, step.shift)
    )
    return _requantized(centered * (np.float32(1) / roots)[:, None] * factor + shift, step.to).reshape(shape)


def _interpolate(step: Interpolate, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    x = inputs[0].astype(np.int64) - step.zero_point
    for axis, at, part in ((1, step.columns, step.column_parts), (0, step.rows, step.row_parts)):
        next_one = np.minimum(at + 1, x.shape[axis] - 1)
        parts = part.astype(np.int64).reshape([-1 if a == axis else 1 for a in range(3)])
        x = x.take(at, axis) * (PARTS - parts) + x.take(next_one, axis) * parts
    return _requantized(x.astype(np.float32) * np.float32(step.multiplier), step.to)


def _concat(step: Concat, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    output: Integers = np.zeros(shape, np.int8)
    for x, move, table in zip(inputs, step.moves, step.tables, strict=True):
        _copy(move, x if table is None else _looked_up(table, x), output)
    return output


def _move(step: Move, inputs: list[Integers], shape: tuple[int, int, int]) -> Integers:
    output: Integers = np.full(shape, 0 if step.fill is None else step.fill, np.int8)
    _copy(step, inputs[0], output)
    return output


def _copy(step: Move, x: Integers, output: Integers) -> None:
    for box in step.boxes:
        to = _strided(output, box.sizes, box.write_steps, box.write_to)
        to[...] = _strided(x, box.sizes, box.read_steps, box.read_from)


def _looked_up(table: Integers, x: Integers) -> Integers:
    found: Integers = table[x.astype(np.int16) + 128]
    return found


_RUN: Mapping[type[Step], Callable[[Any, list[Integers], tuple[int, int, int]], Integers]] = {
    Convolution: _convolution,
    AveragePool: _average_pool,
    MeanOf: _mean_of,
    MaxPool: _max_pool,
    Binary: _binary,
    Lines: _lines,
    Move: _move,
    Table: _table,
    ChannelTables: _channel_tables,
    Softmax: _softmax,
    SoftmaxOf: _softmax_of,
    Product: _product,
    Normalize: _normalize,
    Interpolate: _interpolate,
    Concat: _concat,
}
