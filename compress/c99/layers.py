"""The layers of a generated program: sequences of steps on int8 images in channels-last layout."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.c99.qdq_graph import TensorQuantization
from compress.c99.strided_copies import Box, Index
from compress.data.preprocessing import Preprocessing
from hw_profiles.network.workload import Pair

Integers = NDArray[np.int8]
INTEGERS = np.arange(-128, 128).astype(np.int8)
"""Every signed 8-bit integer, in order."""
PARTS = 2048
"""Of a number that lies between two others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """An image (height, width, channels) between layers; what is flat has one pixel. Tensors of one name have the same
    bytes, and may divide them otherwise."""

    name: str
    shape: tuple[int, int, int]
    quantization: TensorQuantization

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return self.shape[0] * self.shape[1] * self.shape[2]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stored:
    """A tensor of the ONNX file: its name, and for each of its numbers the place in the program's tensor. ``shift`` is
    what its integers are more than the program's."""

    name: str
    index: Index
    shift: int = 0

    def to_file(self, values: NDArray[Any]) -> NDArray[Any]:
        """The file's tensor, in its shape, of the program's numbers."""
        found: NDArray[Any] = values.reshape(-1)[self.index]
        return found

    def to_program(self, values: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
        """The program's tensor of the file's numbers."""
        found = np.empty(self.index.size, values.dtype)
        found[self.index.reshape(-1)] = values.reshape(-1)
        return found.reshape(shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where sums go: the integers' zero point, and the lowest and highest of them that may come out."""

    zero_point: int
    low: int = -128
    high: int = 127


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A window that slides over the image: sizes are (height, width), ``padding`` is top, left, bottom, right."""

    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Convolution:
    """``weight`` (out, height, width, in / groups), ``bias`` int32 and ``multiplier`` float32 for each output.

    The multiplier is the input's scale times the weights' over the output's, in float32 from left to right.
    """

    weight: Integers
    bias: NDArray[np.int32]
    multiplier: NDArray[np.float32]
    window: Window
    groups: int
    zero_point: int
    to: Target

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved alone, and gives one."""
        return self.groups > 1 and self.groups == len(self.weight) and self.weight.shape[3] == 1


@dataclass(frozen=True, kw_only=True, slots=True)
class AveragePool:
    """The mean of a window: of its pixels inside the image, or of all with zeros outside."""

    window: Window
    whole: bool
    before: TensorQuantization
    scale: float
    to: Target


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MeanOf:
    """The mean of what a function gives for the pixels of a window, all of which lie inside the image, in float32.

    The function is a table of 256 ``numbers``, or that of :class:`Lines` for each channel; its numbers are limited to
    ``lowest`` and ``highest`` before they are summed.
    """

    window: Window
    numbers: NDArray[np.float32] | None
    lines: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]] | None
    zero_point: int
    lowest: float
    highest: float
    scale: float
    to: Target


@dataclass(frozen=True, kw_only=True, slots=True)
class MaxPool:
    """The largest number of a window."""

    window: Window


@dataclass(frozen=True, kw_only=True, slots=True)
class Binary:
    """``add``, ``sub`` or ``mul`` of two tensors, in float32, then quantized.

    ``sizes`` are loops that write the output one number after the other; ``steps`` are those of the two operands in
    each loop, 0 where one number stands for several.
    """

    kind: str
    before: tuple[TensorQuantization, TensorQuantization]
    scale: float
    to: Target
    sizes: tuple[int, ...]
    steps: tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lines:
    """A straight line for each channel, or two that meet at the zero point (PReLU): of ``x``, an integer without its
    zero point, ``x * up + shift``, or ``x * down + shift`` where ``x`` is negative. Channels begin again after the
    last one."""

    zero_point: int
    up: NDArray[np.float32]
    down: NDArray[np.float32]
    shift: NDArray[np.float32]
    to: Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """Copies of parts of a tensor to other places; ``fill`` is what stands where nothing is copied to, if any does."""

    boxes: tuple[Box, ...]
    fill: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Table:
    """A function of one integer: its 256 values for -128..127."""

    values: Integers


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ChannelTables:
    """A function of one integer for each channel: (channels, 256). Channels begin again after the last one."""

    values: Integers


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Softmax:
    """Softmax over the channels of each pixel. ``powers[d]`` is e to minus ``d`` steps of the input, in float32."""

    powers: NDArray[np.float32]
    scale: float
    to: Target


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SoftmaxOf:
    """Softmax over the channels of each pixel of what a function gives: a table of 256 ``numbers``, or a straight line
    for each place, of ``x``, an integer without its zero point: ``x * up + shift``. Places begin again after the last
    one."""

    numbers: NDArray[np.float32] | None
    lines: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    zero_point: int
    scale: float
    to: Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """Rows of the first tensor (parts, rows, depth) times rows of the second (parts, columns, depth): (parts, rows,
    columns). ``multiplier`` is the scale of the sums over that of the output."""

    zero_points: tuple[int, int]
    multiplier: float
    to: Target


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Normalize:
    """Each row of ``count`` numbers without its mean and by its standard deviation, times ``factor`` plus ``shift``.

    ``inner`` neighbors have the same factor and shift; they begin again after the last one. Of the integers of a row,
    with their sum and the sum of their squares, the standard deviation times ``count`` is the root of ``count *
    squares - sum * sum``; that is taken in integers, of ``2 ** bits`` times as much plus ``least``.
    """

    factor: NDArray[np.float32]
    shift: NDArray[np.float32]
    count: int
    inner: int
    bits: int
    least: int
    to: Target


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Interpolate:
    """An image of other sides, linearly: for each row and column the one before, and how many of :data:`PARTS` parts of
    the next one count."""

    rows: NDArray[np.int32]
    row_parts: NDArray[np.int32]
    columns: NDArray[np.int32]
    column_parts: NDArray[np.int32]
    multiplier: float
    zero_point: int
    to: Target


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Concat:
    """Tensors side by side: each is copied as its :class:`Move` says, through its table if it has one."""

    moves: tuple[Move, ...]
    tables: tuple[Integers | None, ...]


Step = (
    Convolution | Product | AveragePool | MeanOf | MaxPool | Binary | Lines | Table | ChannelTables | Softmax
    | SoftmaxOf | Normalize | Interpolate | Concat | Move
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ProgramLayer:
    """One kernel of the schedule. The first step reads the inputs, each later one changes the output in place.

    ``offsets`` and ``offset`` are the first bytes of the inputs and of the output in the arena; ``ring_offset`` is that
    of the ``ring_rows`` rows that a window needs where it writes over its input.
    """

    name: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    steps: tuple[Step, ...]
    offsets: tuple[int, ...]
    offset: int
    ring_rows: int = 0
    ring_offset: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a convolution, linear layer or product of two tensors."""
        step = self.steps[0]
        height, width, _ = self.output.shape
        if isinstance(step, Product):
            return self.output.size * self.inputs[0].shape[2]
        return height * width * step.weight.size if isinstance(step, Convolution) else 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Network:
    """Layers in the order in which they run, in one arena.

    ``stored`` says, for each tensor, where it is in the ONNX file, if it is there. ``input_values`` and
    ``output_values`` do so for the ends, which are integers there, or float32 numbers (``integer_ends``).
    """

    input: Tensor
    output: Tensor
    input_offset: int
    output_offset: int
    layers: tuple[ProgramLayer, ...]
    arena_bytes: int
    input_values: Stored
    output_values: Stored
    integer_ends: tuple[bool, bool]
    preprocessing: Preprocessing | None = None
    stored: dict[str, Stored] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def weights(self) -> int:
        """Number of 8-bit weights."""
        return sum(step.weight.size for step in self.convolutions())

    def convolutions(self) -> tuple[Convolution, ...]:
        """The steps that hold weights."""
        return tuple(step for layer in self.layers for step in layer.steps if isinstance(step, Convolution))


_WITH_LIMITS = (Convolution, Product, Binary, AveragePool, MeanOf, Lines, Normalize, Interpolate)


def merged(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Tables one after the other as one, and one that only cuts off as limits of the sums before it.

    >>> relu = Table(values=np.maximum(INTEGERS, 0))
    >>> len(merged((relu, relu)))
    1
    """
    done: list[Step] = []
    for step in steps:
        before = done[-1] if done else None
        if isinstance(step, Table) and isinstance(before, Table):
            done[-1] = Table(values=step.values[before.values.astype(np.int16) + 128])
        elif isinstance(step, Table) and isinstance(before, _WITH_LIMITS):
            low, high = int(step.values[0]), int(step.values[-1])
            if np.array_equal(step.values, np.clip(INTEGERS, low, high)):
                to = replace(before.to, low=max(low, before.to.low), high=min(high, before.to.high))
                done[-1] = replace(before, to=to)
            else:
                done.append(step)
        else:
            done.append(step)
    return tuple(done)
