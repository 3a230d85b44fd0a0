"""Finds the bytes of an ONNX file that hold elements of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compress.fnz.codes.element_kinds import KINDS
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.protobuf_fields import BYTES, VARINT, BrokenFieldsError, Fields

SHORTEST = 32  # bytes; anything shorter is as small among the names around it, as are equal bytes that are not long
MOST_SPANS = 10_000
MOST_FIELDS = 2_000_000

_LONG = 4096

# Messages within messages: the fields of each that lead to tensors.
_INNER = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_DIMS, _TYPE, _FLOATS, _INT32S, _NAME, _RAW, _DOUBLES, _LOCATION = 1, 2, 4, 5, 8, 9, 10, 14
_EXTERNAL = 1

# ONNX's data types -> places in KINDS; for whole bytes, two of 4 bits, complex numbers as pairs.
_KINDS = {
    1: 8, 2: 0, 3: 1, 4: 3, 5: 4, 6: 7, 7: 10, 9: 0, 10: 5, 11: 11, 12: 6, 13: 9, 14: 8, 15: 11,
    16: 5, 17: 0, 18: 0, 19: 0, 20: 0, 21: 2, 22: 2, 23: 2, 24: 0, 25: 0, 26: 0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """``start``, ``end``: the elements' bytes. ``kind``: a place in ``KINDS``. ``varints``: each element is a number of
    variable length. ``rows``: the first side of a tensor that has several, else 1.
    """

    start: int
    end: int
    kind: int
    varints: bool
    rows: int
    name: str


def find_spans(data: bytes) -> list[Span]:
    """The tensors of an ONNX file in the order of their places; short ones are left out.

    Raises:
        InputError: not an ONNX file, too many fields, or weights that lie outside the file.
    """
    fields = Fields(data, MOST_FIELDS)
    try:
        spans = [span for start, end in _tensors(fields) if (span := _span(fields, start, end))]
    except BrokenFieldsError as error:
        raise InputError(f"not an ONNX file ({error})") from None
    spans.sort(key=lambda span: span.start - span.end)
    return sorted(spans[:MOST_SPANS], key=lambda span: span.start)


def _tensors(fields: Fields) -> Iterator[tuple[int, int]]:
    waiting, graphs = [(0, len(fields.data), "model")], 0
    while waiting:
        start, end, message = waiting.pop()
        if message == "tensor":
            yield start, end
            continue
        graphs += message == "graph"
        for number, wire, at, after in fields.of(start, end):
            inner = _INNER[message].get(number) if wire == BYTES else None
            if inner:
                waiting.append((at, after, inner))
    if not graphs:
        raise InputError("not an ONNX file (it holds no graph)")


def _span(fields: Fields, start: int, end: int) -> Span | None:
    data, dims, place, varints, name, kind = fields.data, list[int](), (0, 0), False, "", 0
    for number, wire, at, after in fields.of(start, end):
        if number == _LOCATION and fields.number(at, after)[0] == _EXTERNAL:
            raise InputError(f"weights must be inside the file, those of {name[:80]!r} are not")
        if number == _TYPE and wire == VARINT:
            kind = fields.number(at, after)[0]
        elif number == _DIMS and len(dims) < 2 and at < after:
            dims.append(fields.number(at, after)[0])
            dims += [0] if wire == BYTES else []  # several in one field
        elif number == _NAME:
            name = data[at:after].decode(errors="replace")
        elif number in (_RAW, _FLOATS, _DOUBLES, _INT32S) and wire == BYTES:
            place, varints = (at, after), number == _INT32S
    if (
        kind not in _KINDS
        or _stays(data, *place)
        or (not varints and (place[1] - place[0]) % KINDS[_KINDS[kind]].width)
    ):
        return None
    # Among varints each byte of two elements is a number.
    kind = 0 if varints and KINDS[_KINDS[kind]].form == "nibbles" else _KINDS[kind]
    return Span(
        start=place[0], end=place[1], kind=kind, varints=varints, rows=dims[0] if len(dims) > 1 else 1, name=name
    )


def _stays(data: bytes, start: int, end: int) -> bool:
    return end - start < SHORTEST or (end - start < _LONG and data.count(data[start], start, end) == end - start)
