"""Reads bytes of an untrusted file one after the other and checks each length."""

from __future__ import annotations

from hw_profiles.errors import InputError

_LONGEST_VARINT = 5


class Reader:
    """``labels`` gathers what the codings are called that were met on the way.

    >>> Reader(b"\\x07\\xac\\x02").varint(10)
    7
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.labels: list[str] = []

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count > len(self.data) - self.at:
            raise damaged(f"it ends {count - len(self.data) + self.at} bytes too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def varint(self, most: int) -> int:
        """The next number, seven bits a byte, lowest first; at most ``most``."""
        value = 0
        for shift in range(0, 7 * _LONGEST_VARINT, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        if value > most:
            raise damaged(f"a number must be at most {most}, got {value}")
        return value

    def finish(self) -> None:
        """Nothing may be left."""
        if self.at != len(self.data):
            raise damaged(f"{len(self.data) - self.at} bytes are left over")


def damaged(why: str) -> InputError:
    """The error of a file that is cut off, altered, or made to do harm."""
    return InputError(f"truncated or damaged .fnz file: {why}")


def varint(value: int) -> bytes:
    """What :meth:`Reader.varint` reads.

    >>> varint(300).hex()
    'ac02'
    """
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
