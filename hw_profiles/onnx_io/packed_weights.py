"""Weights stored in few bits, with operations that widen them when the file is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onnx import TensorProto

from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.onnx_io.quantized_ops import format_of
from hw_profiles.onnx_io.shapes import Constant

_MOVING = ("Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze")
_SCALING = ("Mul", "Where")
WIDENING = ("Cast", "BitwiseAnd", *_MOVING, *_SCALING)


def widened_format(node: Any, inputs: Sequence[Constant], result: Constant) -> TensorFormat | None:
    """How the file stores the constant that a node of :data:`WIDENING` makes of constants; None where that is no other
    way than the type of the constant says.

    >>> from onnx.helper import make_node
    >>> half, result = Constant((8, 4), TensorProto.FLOAT16), Constant((8, 4), TensorProto.FLOAT)
    >>> widened_format(make_node("Cast", ["half"], ["result"]), [half], result).bits
    16
    """
    if node.op_type in _SCALING:
        return _scaled(inputs, result)
    source = inputs[0]
    if node.op_type == "BitwiseAnd":
        bits = 8 * math.prod(source.shape) // max(math.prod(result.shape), 1)
        return TensorFormat(bits=bits) if source.data_type == TensorProto.UINT8 and 1 <= bits < 8 else None
    if source.widened is not None or node.op_type in _MOVING or source.data_type == result.data_type:
        return source.widened
    return format_of(source.data_type)


def _scaled(inputs: Sequence[Constant], result: Constant) -> TensorFormat | None:
    """Of the one input that is as large as the result; the smallest of the others are its scales."""
    count = math.prod(result.shape)
    wide = [each for each in inputs if math.prod(each.shape) == count and each.widened is not None]
    scales = min((each for each in inputs if each not in wide), key=lambda each: math.prod(each.shape), default=None)
    if len(wide) != 1 or scales is None or wide[0].widened is None:
        return None
    along = sum(side > 1 for side in scales.shape)
    group = count // max(math.prod(scales.shape), 1) if along > 1 else 0
    return replace(wide[0].widened, per_channel=along == 1, group=group)
