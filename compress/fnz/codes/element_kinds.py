"""Elements of a tensor as unsigned words, and words as planes of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[Any]  # unsigned, 1 to 8 bytes each
Symbols = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """``width``: bytes of a word. ``form``: ``"float"``, ``"signed"``, ``"unsigned"`` or ``"nibbles"`` (two of 4 bits
    lie in a byte, and each becomes a word).
    """

    width: int
    form: str

    def words(self, data: bytes) -> Words:
        """The words of a tensor's bytes."""
        if self.form == "nibbles":
            pairs = np.frombuffer(data, np.uint8)
            return np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)
        return np.frombuffer(data, f"<u{self.width}")

    def bytes(self, words: Words) -> bytes:
        """The inverse of :meth:`words`."""
        if self.form == "nibbles":
            words = (words[0::2] | words[1::2] << 4).astype(np.uint8)
        return words.tobytes()

    def count(self, size: int) -> int:
        """The words in so many bytes."""
        return size * 2 if self.form == "nibbles" else size // self.width


# The number of a kind in the file is its place here.
KINDS = (
    Kind(width=1, form="unsigned"),
    Kind(width=1, form="signed"),
    Kind(width=1, form="nibbles"),
    Kind(width=2, form="unsigned"),
    Kind(width=2, form="signed"),
    Kind(width=2, form="float"),
    Kind(width=4, form="unsigned"),
    Kind(width=4, form="signed"),
    Kind(width=4, form="float"),
    Kind(width=8, form="unsigned"),
    Kind(width=8, form="signed"),
    Kind(width=8, form="float"),
)


def planes(words: Words, kind: Kind) -> list[Symbols]:
    """The highest bytes of all words, then the next ones, down to the lowest.

    The sign becomes the lowest bit first, so that exponents fill whole bytes and small numbers of either sign have
    equal high bytes.
    """
    if kind.width == 1:
        return [words ^ np.uint8(0x80 if kind.form == "signed" else 0)]
    turned = _sign_last(words, kind).view(np.uint8).reshape(-1, kind.width)
    return [np.ascontiguousarray(turned[:, place]) for place in reversed(range(kind.width))]


def from_planes(parts: Sequence[Symbols], kind: Kind) -> Words:
    """The inverse of :func:`planes`."""
    if kind.width == 1:
        return parts[0] ^ np.uint8(0x80 if kind.form == "signed" else 0)
    turned = np.empty((len(parts[0]), kind.width), np.uint8)
    for place, part in zip(reversed(range(kind.width)), parts, strict=True):
        turned[:, place] = part
    return _sign_first(turned.reshape(-1).view(f"<u{kind.width}"), kind)


def _sign_last(words: Words, kind: Kind) -> Words:
    if kind.form == "unsigned":
        return np.ascontiguousarray(words)
    sign = words >> (8 * kind.width - 1)
    return words << 1 | sign if kind.form == "float" else words << 1 ^ -sign


def _sign_first(turned: Words, kind: Kind) -> Words:
    if kind.form == "unsigned":
        return turned
    sign = turned & 1
    return turned >> 1 | sign << (8 * kind.width - 1) if kind.form == "float" else turned >> 1 ^ -sign
