"""Codecs of weights: fp16, int4 in groups, binary."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from compress.argument_checks import is_whole
from compress.weight_codecs.onnx_storage import Codec, Floats, Stored, Weight, constant, node, reshaped
from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import TensorFormat

LARGEST = 7
"""The largest of the 4-bit integers in use, which lie about zero evenly."""
GROUP = 32
_LARGEST_HALF = float(np.finfo(np.float16).max)
_CLIPPINGS = tuple(1 - 0.025 * i for i in range(21))  # shares of a group's largest magnitude that are tried
_MASKS = "masks.of.bits"


@dataclass(frozen=True, slots=True)
class Fp16Codec:
    """IEEE half precision: 11 significant bits, magnitudes up to 65504."""

    opset: int = 13

    def rounded(self, rows: Floats) -> Floats:
        """The nearest half-precision numbers; an InputError where one is too large."""
        largest = float(np.abs(rows).max(initial=0))
        if largest > _LARGEST_HALF:
            raise InputError(f"weights must be within ±{_LARGEST_HALF:.0f} to be stored in float16, got {largest:g}")
        return rows.astype(np.float16).astype(np.float32)

    def stored(self, weight: Weight) -> Stored:
        """The halves, and their cast."""
        name = f"{weight.name}.half"
        halves = weight.shaped(self.rounded(weight.rows)).astype(np.float16)
        return Stored([constant(name, halves)], [node("Cast", [name], weight.name, to=TensorProto.FLOAT)])

    def format(self, columns: int) -> TensorFormat:
        """16 bits, floating."""
        return TensorFormat(bits=16, floating=True)


@dataclass(frozen=True, slots=True)
class Int4Codec:
    """Integers -7..7 times a scale for each ``group`` neighbors along the input axis (a divisor of it from half of
    that on), stored in bfloat16, or for each output channel where the axis is shorter or has no such divisor."""

    group: int = GROUP
    opset: int = 21

    def rounded(self, rows: Floats) -> Floats:
        """The nearest numbers of each group's grid, whose scale is that of the least squared error."""
        groups = self._groups(rows)
        integers, scales = quantized_groups(groups)
        return (integers * scales).astype(np.float32).reshape(rows.shape)

    def stored(self, weight: Weight) -> Stored:
        """Packed integers and scales, and the operations that make the weight of them."""
        integers, scales = quantized_groups(self._groups(weight.rows))
        packed, scale, rows = (f"{weight.name}.{part}" for part in ("int4", "scale", "rows"))
        constants, nodes = reshaped(weight, rows)
        grouped = integers.shape[2] < weight.rows.shape[1]
        given = [
            constant(packed, integers.astype(ml_dtypes.int4)),
            constant(scale, scales.astype(ml_dtypes.bfloat16) if grouped else scales),
        ]
        narrow = (packed, scale) if grouped else (packed,)
        widened = [node("Cast", [name], f"{name}.float", to=TensorProto.FLOAT) for name in narrow]
        product = node("Mul", [f"{packed}.float", f"{scale}.float" if grouped else scale], rows)
        return Stored([*given, *constants], [*widened, product, *nodes])

    def format(self, columns: int) -> TensorFormat:
        """4 bits with a scale for each group or channel."""
        group = group_of(columns, self.group)
        return TensorFormat(bits=4, group=0 if group == columns else group, per_channel=group == columns)

    def _groups(self, rows: Floats) -> Floats:
        return rows.reshape(len(rows), -1, group_of(rows.shape[1], self.group))


@dataclass(frozen=True, slots=True)
class BinaryCodec:
    """Signs, eight in a byte, times the mean magnitude of each output channel, which has the least squared error
    (XNOR-Net, 1603.05279)."""

    opset: int = 18

    def rounded(self, rows: Floats) -> Floats:
        """The scale of each row with the signs of its numbers; zero counts as positive."""
        scales = _scales(rows)
        return np.where(rows >= 0, scales, -scales)

    def stored(self, weight: Weight) -> Stored:
        """Packed bits and scales, and the operations that make the weight of them."""
        rows = weight.rows
        packed, scale = f"{weight.name}.bits", f"{weight.name}.scale"
        sides = [1] * weight.value.ndim
        sides[weight.axis] = -1
        signs, cutting = _unpadded(f"{packed}.true", rows.size)
        shapes, shaping = reshaped(Weight(f"{weight.name}.sign", weight.value, weight.axis), signs)
        given = [
            constant(packed, np.packbits(rows.flatten() >= 0, bitorder="little").reshape(-1, 1)),
            constant(_MASKS, np.uint8(1) << np.arange(8, dtype=np.uint8)),
            constant(scale, _scales(rows).reshape(sides)),
        ]
        nodes = [
            node("BitwiseAnd", [packed, _MASKS], f"{packed}.masked"),
            node("Cast", [f"{packed}.masked"], f"{packed}.true", to=TensorProto.BOOL),
            *cutting.nodes,
            *shaping,
            node("Neg", [scale], f"{scale}.less"),
            node("Where", [f"{weight.name}.sign", scale, f"{scale}.less"], weight.name),
        ]
        return Stored([*given, *cutting.constants, *shapes], nodes)

    def format(self, columns: int) -> TensorFormat:
        """One bit, a scale for each channel."""
        return TensorFormat(bits=1, per_channel=True)


FP16: Codec = Fp16Codec()
BINARY: Codec = BinaryCodec()


def quantized_groups(groups: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Integers (…, n) within -7..7 and scales (…, 1), bfloat16 numbers, of the least squared error among 21 clippings.

    Numbers that lie on such a grid already are kept exactly.

    >>> integers, scales = quantized_groups(np.float32([[0.5, -3.5, 1.4]]))
    >>> integers.tolist(), scales.tolist()
    ([[1, -7, 3]], [[0.5]])
    """
    largest = np.abs(groups).max(axis=-1, keepdims=True)
    best = np.full(largest.shape, np.inf, np.float32)
    scales = np.ones_like(largest)
    for clipping in _CLIPPINGS:
        tried = (largest * np.float32(clipping) / LARGEST).astype(ml_dtypes.bfloat16).astype(np.float32)
        tried[tried == 0] = 1
        error = np.square(groups - tried * _integers(groups, tried)).sum(axis=-1, keepdims=True)
        better = error < best
        best[better], scales[better] = error[better], tried[better]
    return _integers(groups, scales).astype(np.int8), scales


def group_of(columns: int, group: int) -> int:
    """How many neighbors share a scale: the largest divisor of ``columns`` in group / 2 … group, else all.

    >>> group_of(144, 32), group_of(9, 32), group_of(31 * 37, 32)
    (24, 9, 31)
    """
    if columns <= group:
        return columns
    fitting = [size for size in range(-(-group // 2), group + 1) if columns % size == 0]
    return fitting[-1] if fitting else columns


def _integers(groups: Floats, scales: Floats) -> Floats:
    rounded: Floats = np.clip(np.rint(groups / scales), -LARGEST, LARGEST)
    return rounded


def _scales(rows: Floats) -> Floats:
    scales: Floats = np.abs(rows).mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    return scales


def _unpadded(name: str, size: int) -> tuple[str, Stored]:
    """The first ``size`` of the bits in ``name``: under what name they are, and what makes them."""
    if size % 8 == 0:
        return name, Stored([], [])
    flat, cut = f"{name}.flat", f"{name}.cut"
    constants = [constant(f"{name}.{part}", np.array([value])) for part, value in (("all", -1), ("0", 0), ("n", size))]
    nodes = [
        node("Reshape", [name, f"{name}.all"], flat),
        node("Slice", [flat, f"{name}.0", f"{name}.n"], cut),
    ]
    return cut, Stored(constants, nodes)


def check_group(what: str, group: int) -> None:
    """Raise an InputError where no group can be so small."""
    if not is_whole(group, 2):
        raise InputError(f"{what} must be at least 2, got {group!r}")
