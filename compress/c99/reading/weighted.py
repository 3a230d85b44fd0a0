"""Convolutions and linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.c99.layers import Convolution, Integers, Step, Target, Tensor, Window
from compress.c99.qdq_graph import TensorQuantization, place
from compress.c99.reading.builder import Builder
from compress.c99.reading.values import Draft, Image, Padding, Value, channels_last, row_by_row
from compress.c99.strided_copies import OUTSIDE, Index
from hw_profiles.errors import InputError
from hw_profiles.network.batch_norm import norm_line
from hw_profiles.onnx_io.ops import padding_of

_MOST_SUM = 2**31 - 1
LARGEST_SIDE = 2**15 - 1
"""Kernels keep sides of images and windows in 16 bits."""
LARGEST_STEP = 127


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Weighted:
    """Sums of products: ``products`` are the scales of the sums, ``factor`` and ``shift`` what the real numbers of each
    output channel are multiplied with and added to afterwards."""

    node: Any
    source: Tensor
    shape: Image
    weight: Integers
    window: Window
    groups: int
    products: NDArray[np.float32]
    bias: NDArray[np.int64]
    channel_axis: int

    def draft(self, builder: Builder) -> Draft:
        return Draft(
            node=self.node,
            inputs=(self.source,),
            shape=self.shape,
            make=self.steps,
            absorb=lambda node: self.absorbed(builder, node),
        )

    def steps(self, to: TensorQuantization, target: Target) -> tuple[Step, ...]:
        largest = 255 * np.abs(self.weight.astype(np.int64)).sum(axis=(1, 2, 3)) + np.abs(self.bias)
        if largest.max() > _MOST_SUM:
            raise InputError(f"{place(self.node)}: its sums must fit 32 bits, but can reach {largest.max()}")
        return (
            Convolution(
                weight=self.weight,
                bias=self.bias.astype(np.int32),
                multiplier=(self.products / np.float32(to.scale)).astype(np.float32),
                window=self.window,
                groups=self.groups,
                zero_point=self.source.quantization.zero_point,
                to=target,
            ),
        )

    def absorbed(self, builder: Builder, node: Any) -> Draft | None:
        """This with a constant for each channel added to it or multiplied with it, or normalized."""
        graph = builder.graph
        if node.op_type == "BatchNormalization":
            factor, shift = batch_normalization(builder, node)
        else:
            at = next((i for i, name in enumerate(node.input) if builder.constant(name)), None)
            given = None if at is None else graph.number_array(node.input[at])
            values = self._per_channel(given)
            if at is None or given is None or values is None or len(node.input) != 2:
                return None
            if node.op_type == "Add" and given.size == len(self.products):
                return replace(self, bias=self.bias + graph.bias(node, at, self.products)).draft(builder)
            made = line(node.op_type, at, values)
            if made is None:
                return None
            factor, shift = made
        products = (self.products * factor).astype(np.float32)
        if (products == 0).any() or not np.isfinite(products).all():
            return None
        bias = np.rint(self.bias + np.broadcast_to(shift, products.shape) / products.astype(np.float64))
        return replace(self, products=products, bias=bias.astype(np.int64)).draft(builder)

    def _per_channel(self, values: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        """A constant that is one number for each output channel, or one for all; else None."""
        if values is None:
            return None
        count = len(self.products)
        if values.size == 1:
            return np.broadcast_to(values.reshape(()), (count,))
        axis = values.ndim + self.channel_axis
        if values.size != count or axis < 0 or values.shape[axis] != count:
            return None
        return values.reshape(-1)


def line(kind: str, at: int, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """What a sum, difference, product or quotient with a constant multiplies with and adds; ``at`` is the place of the
    constant."""
    ones, zeros = np.ones_like(values), np.zeros_like(values)
    if kind == "Add":
        return ones, values
    if kind == "Sub":
        return (-ones, values) if at == 0 else (ones, -values)
    if kind == "Mul":
        return values, zeros
    if kind == "Div" and at == 1 and values.all():
        return ones / values, zeros
    return None


def batch_normalization(builder: Builder, node: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a BatchNormalization multiplies each channel with, and adds."""
    attributes = builder.graph.attributes(node)
    if attributes.get("training_mode", 0):
        raise InputError(f"{place(node)}: must not be in training mode, which takes mean and variance of the batch")
    arrays = [builder.graph.number_array(name) for name in node.input[1:5]]
    if len(arrays) != 4 or any(each is None for each in arrays):
        raise InputError(f"{place(node)}: its scale, bias, mean and variance must be constant")
    factor, shift = norm_line(*map(np.asarray, arrays), epsilon=attributes.get("epsilon", 1e-5))
    return factor.reshape(-1).astype(np.float32), shift.reshape(-1).astype(np.float32)


def convolution(builder: Builder, node: Any) -> None:
    """Conv of images, or of one axis."""
    tensor, value = builder.held(node)
    around: Padding = (0, 0, 0, 0)
    if value.padded is not None:
        inner, around = value.padded
        assert isinstance(inner.source, Tensor)
        tensor, value = inner.source, inner
    weight, scales = builder.graph.weight(node, 1, 0)
    if value.index.ndim not in (3, 4) or value.shape[0] != 1:
        raise InputError(f"{place(node)}: must read (1, C, H, W) or (1, C, L), got {value.shape}")
    attributes = builder.graph.attributes(node)
    pads = padding_of(attributes, value.shape[2:], weight.shape[2:])
    top, left, bottom, right = (a + b for a, b in zip(pads, around, strict=True))
    window = Window(
        kernel_size=_pair(weight.shape[2:]),
        stride=_pair(attributes.get("strides", ())),
        padding=(top, left, bottom, right),
        dilation=_pair(attributes.get("dilations", ())),
    )
    index = _image_index(value.index)
    source = builder.arranged(node, tensor, index, _sides(index))
    kernel = weight.reshape(*weight.shape[:2], *window.kernel_size).transpose(0, 2, 3, 1)
    groups = attributes.get("group", 1)
    rank = value.index.ndim
    draft = _weighted(builder, node, source, kernel, scales, window=window, groups=groups, channel_axis=1 - rank)
    height, width, channels = draft.shape
    dims = (1, channels, height, width) if rank == 4 else (1, channels, width)
    builder.values[node.output[0]] = Value(source=draft, index=channels_last(dims))


def transposed_convolution(builder: Builder, node: Any) -> None:
    """ConvTranspose: zeros between the pixels, then a convolution with the window turned around."""
    tensor, value = builder.held(node)
    attributes = builder.graph.attributes(node)
    weight, scales = builder.graph.weight(node, 1, 1)
    groups, stride = attributes.get("group", 1), _pair(attributes.get("strides", ()))
    is_padded = attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    if value.index.ndim != 4 or value.shape[0] != 1 or attributes.get("output_shape") or not is_padded:
        raise InputError(f"{place(node)}: must read (1, C, H, W), with neither output_shape nor auto_pad")
    if scales.size > 1 and groups > 1:
        raise InputError(f"{place(node)}: with groups its weights must have one scale")
    dilation = _pair(attributes.get("dilations", ()))
    top, left, bottom, right = padding_of(attributes, value.shape[2:], weight.shape[2:])
    more = _pair(attributes.get("output_padding", (0, 0)))
    index = _image_index(value.index)
    height, width, channels = ((n - 1) * s + 1 for n, s in zip(index.shape, (*stride, 1), strict=True))
    apart = np.full((height, width, channels), OUTSIDE)
    apart[:: stride[0], :: stride[1]] = index
    source = builder.arranged(node, tensor, apart, (height, width, channels))
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    padding = (reach[0] - top, reach[1] - left, reach[0] - bottom + more[0], reach[1] - right + more[1])
    if min(padding) < 0:
        raise InputError(f"{place(node)}: its pads must be smaller than its window, got {(top, left, bottom, right)}")
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    turned = weight.reshape(groups, inputs, outputs, *weight.shape[2:])[..., ::-1, ::-1]
    kernel = turned.transpose(0, 2, 3, 4, 1).reshape(groups * outputs, *weight.shape[2:], inputs)
    window = Window(kernel_size=_pair(weight.shape[2:]), padding=padding, dilation=dilation)
    draft = _weighted(builder, node, source, kernel, scales, window=window, groups=groups, channel_axis=-3)
    height, width, channels = draft.shape
    builder.values[node.output[0]] = Value(source=draft, index=channels_last((1, channels, height, width)))


def _weighted(
    builder: Builder,
    node: Any,
    source: Tensor,
    kernel: NDArray[np.int16],
    scales: NDArray[np.float32],
    *,
    window: Window,
    groups: int,
    channel_axis: int,
) -> Draft:
    """A convolution with the weights (out, height, width, in / groups)."""
    source, packed = _in_bytes(builder, node, source, kernel, groups)
    height, width = out_sides(node, source.shape, window)
    products = np.broadcast_to(np.float32(source.quantization.scale) * scales, (len(kernel),))
    shape = (height, width, len(kernel))
    check_sides(node, window, source.shape, shape)
    weighted = _Weighted(
        node=node,
        source=source,
        shape=shape,
        weight=packed,
        window=window,
        groups=groups,
        products=products,
        bias=builder.graph.bias(node, 2, products),
        channel_axis=channel_axis,
    )
    return weighted.draft(builder)


def _in_bytes(
    builder: Builder, node: Any, source: Tensor, kernel: NDArray[np.int16], groups: int
) -> tuple[Tensor, Integers]:
    """Weights as signed bytes. Where their zero point is not in the middle, some may be larger: then each is a sum of
    two, and the input is there twice."""
    if kernel.min() >= -128 and kernel.max() <= 127:
        return source, np.ascontiguousarray(kernel.astype(np.int8))
    half = kernel // 2
    parts = np.concatenate([half, kernel - half], axis=3)
    if parts.max() > 127:
        raise InputError(f"{place(node)}: its weights must be at most 254 over their zero point, got {kernel.max()}")
    height, width, channels = source.shape
    places = np.arange(source.size).reshape(height, width, groups, channels // groups)
    twice = np.concatenate([places, places], axis=3).reshape(height, width, 2 * channels)
    return builder.arranged(node, source, twice, (height, width, 2 * channels)), np.ascontiguousarray(
        parts.astype(np.int8)
    )


def linear(builder: Builder, node: Any) -> None:
    """Gemm, or MatMul with constant weights, of one row of numbers or of many."""
    at = 1 if builder.constant(node.input[1]) else 0
    if at == 0 or builder.constant(node.input[0]):
        raise InputError(f"{place(node)}: supported only if exactly the second input is constant; replace or remove it")
    tensor, value = builder.held(node)
    attributes = builder.graph.attributes(node)
    if attributes.get("alpha", 1.0) != 1 or attributes.get("beta", 1.0) != 1 or attributes.get("transA", 0):
        raise InputError(f"{place(node)}: must have alpha and beta 1 and no transA")
    rows_first = bool(attributes.get("transB", 0))
    weight, scales = builder.graph.weight(node, 1, 0 if rows_first else 1)
    if weight.ndim != 2:
        raise InputError(f"{place(node)}: its weights must be (in, out), got {weight.shape}")
    weight = weight if rows_first else weight.T
    *leading, count = value.shape
    if weight.shape[1] != count:
        raise InputError(f"{place(node)}: must read {weight.shape[1]} numbers, got {count}")
    rows = int(np.prod(leading))
    if rows == 1 and value.complete:
        source = tensor
        placed = np.empty_like(weight)
        placed[:, value.index.reshape(-1)] = weight  # the weights follow the order in which the numbers lie
        kernel = placed.reshape(len(weight), *tensor.shape)
    else:
        source = builder.arranged(node, tensor, value.index, (1, rows, count))
        kernel = weight.reshape(len(weight), 1, 1, count)
    window = Window(kernel_size=(kernel.shape[1], kernel.shape[2]))
    draft = _weighted(builder, node, source, kernel, scales, window=window, groups=1, channel_axis=-1)
    builder.values[node.output[0]] = Value(source=draft, index=row_by_row((*leading, len(weight))))


def out_sides(node: Any, read: Image, window: Window, *, ceil: bool = False) -> tuple[int, int]:
    """Height and width of what a window makes of an image."""
    found = []
    for axis in (0, 1):
        reach = window.dilation[axis] * (window.kernel_size[axis] - 1) + 1
        before, after = window.padding[axis], window.padding[axis + 2]
        room = read[axis] + before + after - reach
        stride = window.stride[axis]
        count = (-(-room // stride) if ceil else room // stride) + 1
        if count < 1:
            raise InputError(f"{place(node)}: its window must fit into the image, got {window.kernel_size} in {read}")
        if ceil and (count - 1) * stride >= read[axis] + before:
            count -= 1  # a window must begin within the image or the zeros before it
        found.append(count)
    return found[0], found[1]


def check_sides(node: Any, window: Window, *images: Image) -> None:
    """Kernels keep sides in 16 bits and steps in 8."""
    numbers = ((*window.kernel_size, *window.padding), LARGEST_SIDE), ((*window.stride, *window.dilation), LARGEST_STEP)
    for sizes, most in numbers:
        if min(sizes) < 0 or max(sizes) > most:
            raise InputError(f"{place(node)}: its sizes must be between 0 and {most}, got {sizes}")
    for image in images:
        if max(image) > LARGEST_SIDE:
            raise InputError(f"{place(node)}: sides must be at most {LARGEST_SIDE}, got {image}")


def _image_index(index: Index) -> Index:
    """(H, W, C) of (1, C, H, W), or (1, L, C) of (1, C, L)."""
    return np.moveaxis(index[0] if index.ndim == 4 else index[0][:, None], 0, -1)


def _sides(index: Index) -> Image:
    height, width, channels = index.shape
    return (height, width, channels)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    height, width = (1, 1, *values)[-2:]
    return (height, width)
