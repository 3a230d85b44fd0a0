"""A traced workload as plain lists, and back; names of operations are not kept."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.network.workload import Op, Workload, WorkloadBuilder

_INPUT = "input"
_LISTED = ("name", "kind", "inputs")  # fields of an Op that stand at their own place in a record
_DEFAULTS = {field.name: field.default for field in fields(Op) if field.name not in _LISTED}

Record = list[Any]


def to_records(workload: Workload) -> list[Record]:
    """``[kind, other fields, shape, inputs]`` of each operation, in order.

    Fields that have their default are left out. An input is how many operations before this one it was made; what is
    farther back than all of them is the network's input.

    >>> builder = WorkloadBuilder("image", (1, 3, 8, 8))
    >>> conv = builder.conv("stem", "image", 4, kernel_size=3, bias=False)
    >>> to_records(builder.build())
    [['conv', {'weight_shape': [4, 3, 3, 3], 'padding': [1, 1, 1, 1], 'kernel_size': [3, 3]}, [1, 4, 8, 8], [1]]]
    """
    place = {workload.input: -1} | {op.name: i for i, op in enumerate(workload.ops)}
    if place[workload.output] != len(workload.ops) - 1:
        raise InputError(f"the output must be made by the last operation, got {workload.output!r}")
    return [
        [op.kind, _other_fields(op), list(workload.shapes[op.name]), [i - place[name] for name in op.inputs]]
        for i, op in enumerate(workload.ops)
    ]


def from_records(input_shape: tuple[int, ...], records: list[Record]) -> Workload:
    """The workload of some records; its operations are called after their place.

    >>> builder = WorkloadBuilder("image", (1, 3, 8, 8))
    >>> conv = builder.conv("stem", "image", 4, kernel_size=3)
    >>> from_records((1, 3, 8, 8), to_records(builder.build())).macs
    6912
    """
    builder = WorkloadBuilder(_INPUT, input_shape)
    for i, (kind, others, shape, inputs) in enumerate(records):
        names = tuple(_INPUT if i - back < 0 else str(i - back) for back in inputs)
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in others.items()
        }
        builder.append(Op(str(i), kind, names, **given), tuple(shape))
    return builder.build()


def _other_fields(op: Op) -> dict[str, Any]:
    values = {name: getattr(op, name) for name in _DEFAULTS}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value != _DEFAULTS[name]
    }
