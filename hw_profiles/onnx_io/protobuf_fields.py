"""Walks the fields of protocol buffers without making anything of them."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, _FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


class BrokenFieldsError(Exception):
    """Fields that are cut off or of no known kind, or too many of them."""


class Fields:
    """The fields of messages in ``data``, counted over all of them: at most ``most``.

    >>> list(Fields(bytes.fromhex("0a03616263"), 9).of(0, 5))
    [(1, 2, 2, 5)]
    """

    def __init__(self, data: bytes, most: int) -> None:
        self.data = data
        self.left = self.most = most

    def of(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Number, wire type, and the place of the value, of each field of a message.

        Raises:
            BrokenFieldsError: see the class.
        """
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise BrokenFieldsError(f"a model must have at most {self.most} fields")
            tag, start = self.number(at, end)
            wire, size = tag & 7, {_FIXED32: 4, _FIXED64: 8}.get(tag & 7, 0)
            if wire == BYTES:
                size, start = self.number(start, end)
            elif wire == VARINT:
                size = self.number(start, end)[1] - start
            at = start + size
            if at > end or wire not in (VARINT, _FIXED64, BYTES, _FIXED32):
                raise BrokenFieldsError(f"malformed field at byte {start}")
            yield tag >> 3, wire, start, at

    def number(self, at: int, end: int) -> tuple[int, int]:
        """A varint and where it ends."""
        value = 0
        for place in range(min(_LONGEST_VARINT, end - at)):
            byte = self.data[at + place]
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value, at + place + 1
        raise BrokenFieldsError(f"malformed field at byte {at}")
