"""Pooling, and mean and maximum over axes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compress.c99.layers import AveragePool, MaxPool, MeanOf, Step, Target, Tensor, Window
from compress.c99.qdq_graph import TensorQuantization, place
from compress.c99.reading.builder import Builder, unknown
from compress.c99.reading.values import Draft, Floats, Image, Mean, Value, channels_last, row_by_row
from compress.c99.reading.weighted import check_sides, out_sides
from compress.c99.strided_copies import Index
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.ops import padding_of

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Windows:
    """A window over a tensor, and what it makes: its sides in the program, and the index of the file's tensor."""

    source: Tensor
    window: Window
    shape: Image
    made: Index


def pooled(builder: Builder, node: Any) -> None:
    """AveragePool and MaxPool of images, or of one axis."""
    floats = _floats(builder, node)
    tensor, value = (floats.tensor, builder.value(node)) if floats else builder.held(node)
    if value.index.ndim not in (3, 4) or value.shape[0] != 1 or len(node.output) > 1:
        raise InputError(f"{place(node)}: must read (1, C, H, W) or (1, C, L) and make one tensor, got {value.shape}")
    attributes = builder.graph.attributes(node)
    kernel = attributes["kernel_shape"]
    window = Window(
        kernel_size=_pair(kernel),
        stride=_pair(attributes.get("strides") or ()),
        padding=padding_of(attributes, value.shape[2:], kernel),
        dilation=_pair(attributes.get("dilations") or ()),
    )
    index = np.moveaxis(value.index[0] if value.index.ndim == 4 else value.index[0][:, None], 0, -1)
    source = builder.arranged(node, tensor, index, index.shape)
    ceil = bool(attributes.get("ceil_mode", 0))
    shape = (*out_sides(node, source.shape, window, ceil=ceil), source.shape[2])
    check_sides(node, window, source.shape, shape)
    whole = bool(attributes.get("count_include_pad", 0))
    if whole and ceil and any(window.padding):
        raise InputError(f"{place(node)}: must not have both count_include_pad and ceil_mode")
    dims = (1, shape[2], *shape[:2]) if value.index.ndim == 4 else (1, shape[2], shape[1])
    made = channels_last(dims)
    windows = _Windows(source=source, window=window, shape=shape, made=made)
    if floats is not None and (any(window.padding) or ceil):
        builder.held(node)  # which says that it must be quantized
    elif floats is not None:
        of = Mean(value=builder.value(node), axes=frozenset(), left=())
        _mean_of(builder, node, windows, of, index)
    elif node.op_type == "MaxPool":
        _largest(builder, node, windows)
    else:
        _mean(builder, node, windows, whole=whole)


def reduced(builder: Builder, node: Any) -> None:
    """Means, sums and largest numbers over any axes, and the global pools."""
    value = builder.value(node)
    rank, attributes = value.index.ndim, builder.graph.attributes(node)
    axes, kept = list(range(2, rank)), True
    if node.op_type.startswith("Reduce"):
        kept = bool(attributes.get("keepdims", 1))
        given = attributes.get("axes")
        if given is None and len(node.input) > 1 and node.input[1]:
            held = builder.graph.constants.get(node.input[1])
            if held is None:
                raise InputError(unknown(node))
            given = held.reshape(-1).tolist()
        if not given and attributes.get("noop_with_empty_axes", 0):
            raise InputError(unknown(node))
        axes = sorted(a % rank for a in given) if given else list(range(rank))
    dims = [1 if axis in axes else side for axis, side in enumerate(value.shape) if kept or axis not in axes]
    left = tuple(None if axis in axes else axis for axis in range(rank) if kept or axis not in axes)
    source = value.source
    floats, before = None, source.mean if isinstance(source, Draft) and not source.clamps else None
    mean = node.op_type in ("ReduceMean", "GlobalAveragePool")
    if before is not None and mean and np.array_equal(value.index, row_by_row(value.shape)):
        # A mean of means of as many numbers each is the mean of all.
        axes = sorted(before.axes | {a for axis in axes if (a := before.left[axis]) is not None})
        left = tuple(None if axis is None else before.left[axis] for axis in left)
        value = before.value
        floats = value.source.floats if isinstance(value.source, Draft) else None
        tensor = floats.tensor if floats else _tensor(value)
    elif mean and (floats := _floats(builder, node)) is not None:
        tensor = floats.tensor
    else:
        tensor, value = builder.held(node)
    turned = value.index.transpose([*axes, *(axis for axis in range(value.index.ndim) if axis not in axes)])
    count, channels = _sizes(turned.shape, len(axes))
    image = (turned.shape[0], turned.shape[1], channels) if len(axes) == 2 else (1, count, channels)
    read = builder.arranged(node, tensor, turned, image)
    window = Window(kernel_size=image[:2])
    check_sides(node, window, image)
    windows = _Windows(source=read, window=window, shape=(1, 1, channels), made=row_by_row(tuple(dims)))
    of = Mean(value=value, axes=frozenset(axes), left=left)
    if floats is not None:
        _mean_of(builder, node, windows, of, turned)
    elif mean:
        _mean(builder, node, windows, mean=of)
    elif node.op_type == "ReduceSum":
        _mean(builder, node, windows, times=count)
    else:
        _largest(builder, node, windows)


def _sizes(shape: tuple[int, ...], axes: int) -> tuple[int, int]:
    return int(np.prod(shape[:axes])), int(np.prod(shape[axes:]))


def _floats(builder: Builder, node: Any) -> Floats | None:
    """What stands for numbers that were not quantized, where they follow from single integers."""
    source = builder.value(node).source
    quantized = isinstance(source, Tensor) or node.input[0] in builder.wanted or node.op_type == "MaxPool"
    floats = source.floats if isinstance(source, Draft) else None
    of_channels = floats is not None and floats.lines is None and floats.of_channels
    return None if quantized or of_channels else floats


def _tensor(value: Value) -> Tensor:
    assert isinstance(value.source, Tensor)
    return value.source


def _mean_of(builder: Builder, node: Any, of: _Windows, mean: Mean, index: Index) -> None:
    draft = mean.value.source
    assert isinstance(draft, Draft)
    floats = draft.floats
    assert floats is not None
    lowest, highest = np.clip(builder.limits(draft), -_LARGEST, _LARGEST).tolist()
    lines = None
    if floats.lines is not None:
        rows = [each[index.reshape(-1)].reshape(-1, of.source.shape[2]) for each in floats.lines]
        if any((each != each[0]).any() for each in rows):
            raise InputError(f"{place(node)}: no C99 kernel is known for constants that are not one for each channel")
        up, down, shift = (np.ascontiguousarray(each[0]) for each in rows)
        lines = (up, down, shift)

    def make(to: TensorQuantization, target: Target) -> tuple[Step, ...]:
        numbers = None if floats.numbers is None else floats.numbers()
        return (
            MeanOf(
                window=of.window,
                numbers=numbers,
                lines=lines,
                zero_point=of.source.quantization.zero_point,
                lowest=lowest,
                highest=highest,
                scale=to.scale,
                to=target,
            ),
        )

    made = Draft(node=node, inputs=(of.source,), shape=of.shape, make=make, mean=mean if mean.axes else None)
    builder.values[node.output[0]] = Value(source=made, index=of.made)


def _mean(
    builder: Builder, node: Any, of: _Windows, *, whole: bool = False, times: int = 1, mean: Mean | None = None
) -> None:
    before = replace(of.source.quantization, scale=of.source.quantization.scale * times)

    def make(to: TensorQuantization, target: Target) -> tuple[Step, ...]:
        return (AveragePool(window=of.window, whole=whole, before=before, scale=to.scale, to=target),)

    draft = Draft(node=node, inputs=(of.source,), shape=of.shape, make=make, mean=mean, range=before.range)
    builder.values[node.output[0]] = Value(source=draft, index=of.made)


def _largest(builder: Builder, node: Any, of: _Windows) -> None:
    """The largest integers, which are those of the largest numbers; quantized as they are."""
    step = MaxPool(window=of.window)
    tensor = builder.layer(node.output[0], (of.source,), of.shape, of.source.quantization, (step,))
    builder.values[node.output[0]] = Value(source=tensor, index=of.made)


def _pair(values: Any) -> tuple[int, int]:
    height, width = (1, 1, *values)[-2:]
    return (height, width)
