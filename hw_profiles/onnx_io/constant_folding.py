"""Folds the small constants from which exporters compute shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Value = NDArray[Any]
Attributes = dict[str, Any]

_INTEGER_LIMIT = 2**62


def fold(
    kind: str, values: Sequence[Value | None], attributes: Attributes, shapes: Sequence[tuple[int, ...]]
) -> Sequence[Value]:
    """The results of the operation for these values, of these ``shapes``; none if they are unknown. The caller knows
    that they are small.

    >>> fold("Concat", [np.array([1]), np.array([2, 3])], {"axis": 0}, [(3,)])
    [array([1, 2, 3])]
    """
    if kind == "Split":
        ends = np.cumsum([shape[attributes.get("axis", 0)] for shape in shapes])
        found = np.split(np.asarray(values[0]), ends[:-1], attributes.get("axis", 0))
    else:
        result = _single(kind, values, attributes) if kind in FOLDED else None
        found = [] if result is None else [result]
    return found if [value.shape for value in found] == list(shapes) else []


def _single(kind: str, values: Sequence[Value | None], attributes: Attributes) -> Value | None:
    present = [v for v in values if v is not None]
    if kind in _ARITHMETIC and any(np.abs(v.astype(np.float64)).max(initial=0) > _INTEGER_LIMIT for v in present):
        return None
    try:
        with np.errstate(all="ignore"):
            return np.asarray(FOLDED[kind](list(values), attributes))
    except (ArithmeticError, IndexError, KeyError, TypeError, ValueError):
        return None


def _axes(values: list[Any], attributes: Attributes) -> tuple[int, ...] | None:
    given = attributes.get("axes")
    if given is None and len(values) > 1 and values[1] is not None:
        given = values[1].reshape(-1).tolist()
    return None if given is None else tuple(int(a) for a in given)


def _slice(values: list[Any], attributes: Attributes) -> Value:
    given: list[Any] = [*values, *[None] * (5 - len(values))]
    x, starts, ends, axes, steps = given
    starts = attributes.get("starts") if starts is None else starts.tolist()
    ends = attributes.get("ends") if ends is None else ends.tolist()
    axes = attributes.get("axes") if axes is None else axes.tolist()
    index = [slice(None)] * x.ndim
    for i, (start, end) in enumerate(zip(starts or (), ends or (), strict=True)):
        step = 1 if steps is None else int(steps[i])
        index[i if axes is None else axes[i]] = slice(start, end, step)
    result: Value = x[tuple(index)]
    return result


def _unsqueeze(values: list[Any], attributes: Attributes) -> Value:
    return np.expand_dims(values[0], _axes(values, attributes) or ())


def _squeeze(values: list[Any], attributes: Attributes) -> Value:
    result: Value = np.squeeze(values[0], _axes(values, attributes))
    return result


def _divide(values: list[Any], _: Attributes) -> Value:
    a, b = values
    quotient: Value = np.trunc(a / b).astype(a.dtype) if a.dtype.kind in "iu" else a / b
    return quotient


def _cast(values: list[Any], attributes: Attributes) -> Value:
    result: Value = values[0].astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))
    return result


def _filled(values: list[Any], attributes: Attributes) -> Value:
    fill = numpy_helper.to_array(attributes["value"]).reshape(-1)[0] if "value" in attributes else np.float32(0)
    return np.full([int(side) for side in values[0]], fill)


def _reshape(values: list[Any], _: Attributes) -> Value:
    x, shape = values
    dims = [x.shape[i] if side == 0 else int(side) for i, side in enumerate(shape)]
    result: Value = x.reshape(dims)
    return result


def _reduce(function: Callable[..., Any]) -> Callable[[list[Any], Attributes], Value]:
    def reduced(values: list[Any], attributes: Attributes) -> Value:
        keep = bool(attributes.get("keepdims", 1))
        return np.asarray(function(values[0], axis=_axes(values, attributes), keepdims=keep)).astype(values[0].dtype)

    return reduced


_ARITHMETIC: dict[str, Callable[[list[Any], Attributes], Any]] = {
    "Add": lambda v, _: v[0] + v[1],
    "Sub": lambda v, _: v[0] - v[1],
    "Mul": lambda v, _: v[0] * v[1],
    "Div": _divide,
    "Mod": lambda v, a: (np.fmod if a.get("fmod") else np.mod)(v[0], v[1]),
    "Pow": lambda v, _: np.power(v[0], v[1]),
    "Neg": lambda v, _: -v[0],
    "Abs": lambda v, _: np.abs(v[0]),
    "Floor": lambda v, _: np.floor(v[0]),
    "Ceil": lambda v, _: np.ceil(v[0]),
    "Round": lambda v, _: np.rint(v[0]),
    "Exp": lambda v, _: np.exp(v[0]),
    "Log": lambda v, _: np.log(v[0]),
    "Clip": lambda v, a: np.clip(v[0], *(v[i] if len(v) > i else a.get(k) for i, k in ((1, "min"), (2, "max")))),
    "Sqrt": lambda v, _: np.sqrt(v[0]),
    "Max": lambda v, _: np.maximum.reduce(v),
    "Min": lambda v, _: np.minimum.reduce(v),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
}
FOLDED: dict[str, Callable[[list[Any], Attributes], Any]] = {
    **_ARITHMETIC,
    "Equal": lambda v, _: v[0] == v[1],
    "Less": lambda v, _: v[0] < v[1],
    "Greater": lambda v, _: v[0] > v[1],
    "LessOrEqual": lambda v, _: v[0] <= v[1],
    "GreaterOrEqual": lambda v, _: v[0] >= v[1],
    "And": lambda v, _: v[0] & v[1],
    "Or": lambda v, _: v[0] | v[1],
    "Not": lambda v, _: ~v[0],
    "Where": lambda v, _: np.where(*v),
    "Identity": lambda v, _: v[0],
    "Cast": _cast,
    "Concat": lambda v, a: np.concatenate(v, a["axis"]),
    "Gather": lambda v, a: np.take(v[0], v[1], axis=a.get("axis", 0)),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Transpose": lambda v, a: np.transpose(v[0], a.get("perm")),
    "Expand": lambda v, _: np.broadcast_to(v[0], np.broadcast_shapes(v[0].shape, [int(s) for s in v[1]])),
    "ConstantOfShape": _filled,
    "Range": lambda v, _: np.arange(*(x.item() for x in v)),
}
