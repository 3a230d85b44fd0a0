"""Rewrites transposed convolutions as convolutions whose channels are moved into the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hw_profiles.network.batch_norm import folded_norm
from hw_profiles.onnx_io.graph_edges import reads
from hw_profiles.onnx_io.rewrites.graph_folding import keep

Floats = NDArray[np.float32]

_TO_THE_END = np.iinfo(np.int64).max
_STATISTICS = ("scale", "shift", "mean", "variance")


def make_subpixel(graph: Any) -> None:
    """Replace each ConvTranspose of an image, in place, by a Conv with a channel for each place within a stride, a
    DepthToSpace, and a Slice where that makes more than is wanted; a batch normalization behind it is folded in.

    No runtime has a kernel in integers for a transposed convolution, and all have one for a convolution. With a kernel
    as large as the stride, or twice as large, no more is multiplied than before. Source: Shi and others, "Is the
    deconvolution layer the same as a convolutional layer?", 1609.07009.

    One that is dilated, has different strides, states the size of what it makes, or is no image stays as it is.

    >>> from onnx import TensorProto
    >>> ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2, None, None]) for name in "xy"]
    >>> weight = numpy_helper.from_array(np.ones((2, 2, 4, 4), np.float32), "w")
    >>> node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])
    >>> graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    >>> make_subpixel(graph)
    >>> [node.op_type for node in graph.node], list(graph.initializer[0].dims)
    (['Conv', 'DepthToSpace', 'Slice'], [8, 2, 2, 2])
    """
    if not any(node.op_type == "ConvTranspose" for node in graph.node):
        return
    rewriter = _Rewriter(graph)
    copies = [type(new).FromString(new.SerializeToString()) for node in graph.node for new in rewriter.rewritten(node)]
    graph.ClearField("node")
    graph.node.extend(copies)
    used = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    keep(graph, "initializer", [tensor for tensor in graph.initializer if tensor.name in used])


@dataclass(frozen=True, slots=True)
class _Window:
    """Of each axis: how many pixels of the input make one of the output, the padding of the convolution in which they
    do, and how many numbers its result has too many at the begin and at the end."""

    stride: int
    taps: tuple[int, ...]
    pads: tuple[int, ...]
    extra: tuple[tuple[int, int], ...]


class _Rewriter:
    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.readers = Counter([*(o.name for o in graph.output), *(n for node in graph.node for n in reads(node))])
        self.norms = {node.input[0]: node for node in graph.node if node.op_type == "BatchNormalization"}
        self.folded: set[str] = set()

    def rewritten(self, node: Any) -> list[Any]:
        """The nodes in its place."""
        if node.op_type == "BatchNormalization" and node.output[0] in self.folded:
            return []
        known = [self._value(name) for name in node.input[1:] if name]
        values = [each for each in known if each is not None]
        if node.op_type != "ConvTranspose" or len(values) < len(known) or values[0].ndim != 4:
            return [node]
        said = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        window = _window(said, values[0].shape[2:])
        if window is None:
            return [node]
        groups, output = said.get("group", 1), node.output[0]
        weight, bias = _output_first(values[0], groups), values[1] if len(values) > 1 else None
        norm = self._norm(output)
        if norm is not None:
            statistics = dict(zip(_STATISTICS, map(self._value, norm.input[1:]), strict=True))
            epsilon = next((each.f for each in norm.attribute if each.name == "epsilon"), 1e-5)
            weight, bias = folded_norm(weight, 0.0 if bias is None else bias, epsilon=epsilon, **statistics)
            output = norm.output[0]
            self.folded.add(output)
        numbers = {"weight": _with_places(weight, window.stride, window.taps)}
        if bias is not None:
            numbers["bias"] = np.repeat(bias, window.stride**2)
        return self._convolution(node.input[0], output, numbers, groups, window)

    def _convolution(
        self, x: str, output: str, numbers: Mapping[str, Floats], groups: int, window: _Window
    ) -> list[Any]:
        inputs = [x, *(self._constant(value, f"{output}.phases.{name}") for name, value in numbers.items())]
        nodes = [helper.make_node("Conv", inputs, [f"{output}.phases"], pads=window.pads, group=groups)]
        if window.stride > 1:
            made = f"{output}.uncut"
            nodes.append(
                helper.make_node("DepthToSpace", [nodes[-1].output[0]], [made], blocksize=window.stride, mode="CRD")
            )
        if any(map(any, window.extra)):
            starts, ends = zip(*window.extra, strict=True)
            limits = {"starts": starts, "ends": [-end if end else _TO_THE_END for end in ends], "axes": (2, 3)}
            inputs = [self._constant(np.array(value, np.int64), f"{output}.{name}") for name, value in limits.items()]
            nodes.append(helper.make_node("Slice", [nodes[-1].output[0], *inputs], [""]))
        nodes[-1].output[0] = output
        for node in nodes:
            node.name = node.output[0]
        return nodes

    def _norm(self, name: str) -> Any | None:
        """The batch normalization of constants that alone reads a tensor."""
        norm = self.norms.get(name)
        if norm is None or self.readers[name] != 1 or any(self._value(each) is None for each in norm.input[1:]):
            return None
        trains = any(each.name == "training_mode" and each.i for each in norm.attribute)
        return None if trains or len(norm.output) > 1 else norm

    def _value(self, name: str) -> Any | None:
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _constant(self, value: Any, name: str) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def _window(said: Mapping[str, Any], kernel: Sequence[int]) -> _Window | None:
    """None for a ConvTranspose with these attributes that is no convolution of this kind.

    A number of the output at place ``q`` before the padding is cut is the sum over taps ``t`` of the input at
    ``q // stride - t`` times the kernel at ``q % stride + stride * t``.
    """
    strides, padding = said.get("strides", [1, 1]), said.get("output_padding", [0, 0])
    begins_ends = _pads(said, kernel, strides, padding)
    if strides[0] != strides[1] or set(said.get("dilations", ())) - {1} or begins_ends is None:
        return None
    step, taps = strides[0], [-(-side // strides[0]) for side in kernel]
    pads, extra = [], []
    for tap, side, more, (begin, end) in zip(taps, kernel, padding, zip(*begins_ends, strict=True), strict=True):
        cut = step * tap - side + end - more
        if cut < 0:
            return None
        whole = [min(each // step, tap - 1) for each in (begin, cut)]  # of the convolution's places, not computed
        pads.append([tap - 1 - each for each in whole])
        extra.append((begin - step * whole[0], cut - step * whole[1]))
    return _Window(step, tuple(taps), tuple(pad[i] for i in (0, 1) for pad in pads), tuple(extra))


def _pads(
    said: Mapping[str, Any], kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int]
) -> tuple[Sequence[int], Sequence[int]] | None:
    """What is cut of each axis, at its begin and at its end; None where that depends on the image."""
    mode = said.get("auto_pad", b"NOTSET")
    if said.get("output_shape"):
        return None
    if mode in (b"NOTSET", b"VALID"):
        pads = said.get("pads", [0, 0, 0, 0]) if mode == b"NOTSET" else [0, 0, 0, 0]
        return (pads[:2], pads[2:]) if min(pads) >= 0 else None
    totals = [side - step + more for side, step, more in zip(kernel, strides, padding, strict=True)]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    if min(totals) < 0:
        return None
    return (small, large) if mode == b"SAME_UPPER" else (large, small)


def _output_first(weight: Floats, groups: int) -> Floats:
    """(in, out / groups, height, width) as (out, in / groups, height, width)."""
    inputs, outputs, *window = weight.shape
    parts = weight.reshape(groups, inputs // groups, outputs, *window).swapaxes(1, 2)
    return parts.reshape(groups * outputs, inputs // groups, *window)


def _with_places(weight: Floats, step: int, taps: Sequence[int]) -> Floats:
    """(out, in, height, width) as (out * step * step, in, taps, taps), the last tap first."""
    out, inputs, *sides = weight.shape
    missing = [(0, step * tap - side) for tap, side in zip(taps, sides, strict=True)]
    whole = np.pad(weight, [(0, 0), (0, 0), *missing]).reshape(out, inputs, taps[0], step, taps[1], step)
    moved = whole.transpose(0, 3, 5, 1, 2, 4)[..., ::-1, ::-1]
    return moved.reshape(out * step * step, inputs, *taps)
