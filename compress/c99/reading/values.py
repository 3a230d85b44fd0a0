"""Tensors of a file while it is read: where their numbers lie in the program, or what is still to be quantized."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.c99.layers import Step, Target, Tensor
from compress.c99.qdq_graph import TensorQuantization
from compress.c99.strided_copies import Index

Shape = tuple[int, ...]
Image = tuple[int, int, int]
Padding = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Draft:
    """A layer whose output was not quantized yet: ``make`` gives its steps for a quantization and limits.

    ``absorb`` gives the draft of the layer with a node after it computed as well, or None. ``clamps`` are ReLU and Clip
    nodes after it. ``function`` is set where all is a function of single numbers of one tensor. ``range`` holds all
    that the layer can give, whatever it reads, where that is known.
    """

    node: Any | None
    inputs: tuple[Tensor, ...]
    shape: Image
    make: Callable[[TensorQuantization, Target], tuple[Step, ...]]
    absorb: Callable[[Any], Draft | None] | None = None
    clamps: tuple[Any, ...] = ()
    function: Function | None = None
    floats: Floats | None = None
    mean: Mean | None = None
    range: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Function:
    """The nodes between the float tensors ``start`` and ``end``, of numbers of one tensor. ``given`` has what stands at
    the start for each of the 256 integers where that is another function for each channel: (channels, 256)."""

    tensor: Tensor
    start: str
    end: str
    given: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Floats:
    """The float32 numbers that the integers of a tensor become: 256 of them (or for each channel, ``of_channels``), or
    lines for each place of the tensor, as :class:`compress.c99.layers.Lines` has them."""

    tensor: Tensor
    numbers: Callable[[], NDArray[np.float32]] | None = None
    of_channels: bool = False
    lines: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]] | None = None

    def all_numbers(self) -> NDArray[np.float32]:
        """The numbers of every integer, or of the ends of the lines, which hold the least and the largest."""
        if self.lines is None:
            assert self.numbers is not None
            return self.numbers()
        up, down, shift = self.lines
        zero = self.tensor.quantization.zero_point
        found: NDArray[np.float32] = np.concatenate([shift, (-128 - zero) * down + shift, (127 - zero) * up + shift])
        return found


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Mean:
    """A mean over ``axes`` of a value; ``left`` has the axis of the value that each axis of the mean is, None for one
    that is a mean."""

    value: Value
    axes: frozenset[int]
    left: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Value:
    """A tensor of the file: ``index`` has its shape, and for each number the place in its source.

    ``padded`` is set where it is another one with zeros around height and width.
    """

    source: Tensor | Draft
    index: Index
    padded: tuple[Value, Padding] | None = None

    @property
    def shape(self) -> Shape:
        """The sides that the file gives it."""
        return self.index.shape

    @property
    def complete(self) -> bool:
        """Whether every number of the source is there once."""
        size = math.prod(self.source.shape)
        return self.index.size == size and bool(np.bincount(_flat(self.index) + 1, minlength=size + 1)[1:].all())


def _flat(index: Index) -> Index:
    return index.reshape(-1)


def row_by_row(shape: Shape) -> Index:
    """The index of a tensor that lies as the file has it.

    >>> row_by_row((1, 3)).tolist()
    [[0, 1, 2]]
    """
    return np.arange(math.prod(shape)).reshape(shape)


def channels_last(shape: Shape) -> Index:
    """The index of a tensor (1, C, H, W) or (1, C, L) whose channels lie together.

    >>> channels_last((1, 2, 1, 3)).tolist()
    [[[[0, 2, 4]], [[1, 3, 5]]]]
    """
    _, channels, *sides = shape
    index: Index = np.moveaxis(np.arange(math.prod(shape)).reshape(1, *sides, channels), -1, 1)
    return index


def as_image(shape: Shape) -> Image:
    """Sides of a tensor that lies row by row, as three.

    >>> as_image((1, 7)), as_image((1, 5, 4, 3)), as_image((2, 2, 2, 3, 7))
    ((1, 1, 7), (5, 4, 3), (8, 3, 7))
    """
    sides = list(shape)
    while len(sides) > 3:
        sides[:2] = [sides[0] * sides[1]]
    height, width, channels = [1] * (3 - len(sides)) + sides
    return (height, width, channels)


def in_program_order(index: Index) -> Index:
    """The axes in the order in which a new tensor lies: of an image the channels last."""
    return np.moveaxis(index, 1, -1) if index.ndim == 4 and index.shape[0] == 1 else index


def program_index(shape: Shape) -> Index:
    """The index of a new tensor."""
    return channels_last(shape) if len(shape) == 4 and shape[0] == 1 else row_by_row(shape)


def program_image(shape: Shape) -> Image:
    """The sides of a new tensor in the program.

    >>> program_image((1, 3, 8, 9)), program_image((1, 10))
    ((8, 9, 3), (1, 1, 10))
    """
    return as_image(in_program_order(row_by_row(shape)).shape)
