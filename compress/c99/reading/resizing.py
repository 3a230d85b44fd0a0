"""Image resizing: nearest-neighbor resizing is a move, linear resizing interpolates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.c99.layers import PARTS, Interpolate, Step, Target, Window
from compress.c99.qdq_graph import TensorQuantization, place
from compress.c99.reading.builder import Builder
from compress.c99.reading.movement import moved
from compress.c99.reading.values import Draft, Value, channels_last
from compress.c99.reading.weighted import check_sides
from hw_profiles.errors import InputError

Places = NDArray[np.int32]

_FIRST_OPSET_OF_COORDINATES = 11
_WHERE = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


def resized(builder: Builder, node: Any) -> None:
    """Resize and Upsample of the nearest number or linear, along height and width.

    Raises:
        InputError: another mode.
    """
    attributes = builder.graph.attributes(node)
    mode = attributes.get("mode", b"nearest").decode()
    if mode == "nearest":
        moved(builder, node)
        return
    is_old = node.op_type == "Upsample" or builder.graph.opset < _FIRST_OPSET_OF_COORDINATES
    where = "asymmetric" if is_old else "half_pixel"
    where = attributes.get("coordinate_transformation_mode", where.encode()).decode()
    tensor, value = builder.held(node)
    others = any(attributes.get(name) for name in ("antialias", "axes", "exclude_outside"))
    others |= attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch"
    if mode != "linear" or where not in _WHERE or others or value.index.ndim != 4 or value.shape[0] != 1:
        raise InputError(
            f"{place(node)}: no C99 kernel is known for it but nearest and linear of images (1, C, H, W), with the "
            f"coordinates {', '.join(_WHERE)}; export it so"
        )
    scales, sides = _scales(builder, node, value.shape)
    if sides[:2] != value.shape[:2]:
        raise InputError(f"{place(node)}: must change height and width alone, got {value.shape} and {sides}")
    index = np.moveaxis(value.index[0], 0, -1)
    source = builder.arranged(node, tensor, index, index.shape)
    shape = (sides[2], sides[3], sides[1])
    check_sides(node, Window(kernel_size=(1, 1)), source.shape, shape)
    rows, columns = (_between(value.shape[axis], sides[axis], scales[axis], where) for axis in (2, 3))

    def make(to: TensorQuantization, target: Target) -> tuple[Step, ...]:
        scale = np.float32(tensor.quantization.scale) / np.float32(to.scale) / np.float32(PARTS**2)
        return (
            Interpolate(
                rows=rows[0], row_parts=rows[1], columns=columns[0], column_parts=columns[1],
                multiplier=float(scale), zero_point=tensor.quantization.zero_point, to=target,
            ),
        )  # fmt: skip

    draft = Draft(node=node, inputs=(source,), shape=shape, make=make, range=tensor.quantization.range)
    builder.values[node.output[0]] = Value(source=draft, index=channels_last(sides))


def _scales(builder: Builder, node: Any, shape: tuple[int, ...]) -> tuple[list[float], tuple[int, ...]]:
    """How many times as many numbers each axis has, and the sides that come out."""
    names = [name for name in node.input[1:] if name and builder.graph.constants[name].size]
    given = builder.graph.constants[names[-1]].reshape(-1) if names else np.zeros(0)
    if len(given) != len(shape):
        raise InputError(f"{place(node)}: must have constant scales or sizes, one for each axis")
    if given.dtype.kind == "f":
        return given.tolist(), tuple(int(np.floor(side * scale)) for side, scale in zip(shape, given, strict=True))
    return [int(new) / side for side, new in zip(shape, given, strict=True)], tuple(map(int, given))


def _between(side: int, wanted: int, scale: float, where: str) -> tuple[Places, Places]:
    """The place before each number along an axis, and how many parts of the next one count.

    >>> [each.tolist() for each in _between(2, 4, 2.0, "half_pixel")]
    [[0, 0, 0, 1], [0, 512, 1536, 0]]
    """
    at = np.arange(wanted, dtype=np.float64)
    if where == "align_corners":
        at = at * ((side - 1) / max(wanted - 1, 1))
    elif where == "asymmetric":
        at = at / scale
    elif where == "pytorch_half_pixel" and wanted == 1:
        at = np.zeros(1)
    else:
        at = (at + 0.5) / scale - 0.5
    at = np.clip(at, 0, side - 1)
    parts = np.rint(at * PARTS).astype(np.int32)
    before = np.minimum(parts // PARTS, side - 1)
    return before.astype(np.int32), (parts - before * PARTS).astype(np.int32)
