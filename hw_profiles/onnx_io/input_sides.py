"""The sides of a file's inputs: those that it says, and those that a caller says where it leaves them open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.network.workload import InputShape, Shape
from hw_profiles.onnx_io.untrusted_file import shown


def input_shapes(values: Sequence[Any], given: InputShape) -> list[Shape]:
    """The shape of each input, batch 1 where it is open. A network of one input must say a batch and sides, one of
    several may read single numbers too.

    Raises:
        InputError: no input, sides that are open still, or that contradict ``given``, or names that are no inputs.

    >>> from onnx import TensorProto, helper
    >>> images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, "H", "W"])
    >>> sizes = helper.make_tensor_value_info("sizes", TensorProto.INT64, ["N", 2])
    >>> input_shapes([images, sizes], (3, 64, 64)), input_shapes([images], {"images": (3, 8, 8)})
    ([(1, 3, 64, 64), (1, 2)], [(1, 3, 8, 8)])
    """
    if not values:
        raise InputError("a network must have an input, got none")
    if len(values) == 1 and states_shape(values[0]) and len(_dims(values[0])) < 2:
        raise InputError(
            f"input {shown(values[0].name)} must have a batch and further dimensions, got {len(_dims(values[0]))} axes"
        )
    by_name = _by_name(values, given)
    return [_shape(value, by_name.get(value.name)) for value in values]


def _by_name(values: Sequence[Any], given: InputShape) -> Mapping[str, tuple[int, ...]]:
    if given is None:
        return {}
    names = [value.name for value in values]
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise InputError(f"input_shape must name inputs of the network ({_listed(names)}), got {_listed(unknown)}")
        return given
    is_open = [value.name for value in values if None in _dims(value)[1:] or not states_shape(value)]
    if len(values) > 1 and len(is_open) > 1:
        raise InputError(
            f"input_shape must say which input it is for, such as {{{is_open[0]!r:.80}: {tuple(given)}}}: the inputs "
            f"{_listed(is_open)} have dynamic dimensions"
        )
    return {(is_open or names)[0]: given}


def _shape(value: Any, given: tuple[int, ...] | None) -> Shape:
    """The sides of the file, or the given ones where the file leaves them open; an open batch is 1."""
    if not states_shape(value):
        if given is None:
            raise InputError(
                f"input {shown(value.name)} says nothing of its dimensions; specify them, e.g. --input-shape 3x224x224"
            )
        return (1, *given)
    dims = _dims(value)
    if not dims:
        return ()
    batch, *fixed = dims
    sides = [None] * len(fixed) if given is None else list(given)
    if len(sides) != len(fixed) or any(a and b and a != b for a, b in zip(fixed, sides, strict=True)):
        raise InputError(
            f"input {shown(value.name)} has the dimensions {_text(fixed)}, but input_shape is {_text(sides)}"
        )
    shape = [a or b for a, b in zip(fixed, sides, strict=True)]
    if None in shape:
        raise InputError(
            f"input {shown(value.name)} has dynamic dimensions, {_text(shape)}; "
            "specify them, e.g. --input-shape 3x224x224"
        )
    return (batch or 1, *(side for side in shape if side is not None))


def states_shape(value: Any) -> bool:
    """Whether a file says how many axes an input or output has."""
    return bool(value.type.tensor_type.HasField("shape"))


def _dims(value: Any) -> list[int | None]:
    return [d.dim_value if d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim]  # 0 and -1 are open too


def _listed(names: Sequence[str]) -> str:
    return ", ".join(shown(name) for name in names[:8])


def _text(dims: Sequence[int | None]) -> str:
    return "x".join("?" if side is None else str(side) for side in dims)
