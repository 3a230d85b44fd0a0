"""Tensor elements that protocol buffers store as variable-length integers."""

from __future__ import annotations

import numpy as np

from compress.fnz.codes.element_kinds import Kind, Words

_LONGEST = 10
_SEPTETS_OF_32_BITS = 5
_PIECE = 1 << 20  # words that are written at a time


def words_of_varints(data: bytes, kind: Kind) -> Words | None:
    """The words of a field's bytes, or None where they would not give the same bytes again."""
    octets = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets < 0x80) + 1
    if kind.width > 4 or not len(ends) or ends[-1] != len(octets):
        return None
    starts = np.concatenate([[0], ends[:-1]])
    values = np.zeros(len(ends), np.uint64)
    for place in range(_SEPTETS_OF_32_BITS):  # the bits above repeat the sign
        there = starts + place < ends
        septets = octets[starts[there] + place].astype(np.uint64) & np.uint64(0x7F)
        values[there] |= septets << np.uint64(7 * place)
    words = values.astype(f"<u{kind.width}")
    return words if varints_of_words(words, kind) == data else None


def varints_of_words(words: Words, kind: Kind) -> bytes:
    """The inverse; a negative number takes ten bytes.

    >>> from compress.fnz.codes.element_kinds import KINDS
    >>> varints_of_words(np.array([1, 200], np.uint8), KINDS[0]).hex()
    '01c801'
    """
    return b"".join(_varints(words[at : at + _PIECE], kind) for at in range(0, len(words), _PIECE))


def _varints(words: Words, kind: Kind) -> bytes:
    letter = "i" if kind.form == "signed" else "u"
    values = words.view(f"<{letter}{kind.width}").astype(np.int64).view(np.uint64)
    lengths = np.ones(len(values), np.int64)
    for place in range(1, _LONGEST):
        lengths += values >= np.uint64(1 << 7 * place)
    starts = np.cumsum(lengths) - lengths
    octets = np.zeros(int(lengths.sum()), np.uint8)
    for place in range(int(lengths.max(initial=0))):
        there = lengths > place
        septets = (values[there] >> np.uint64(7 * place) & np.uint64(0x7F)).astype(np.uint8)
        octets[starts[there] + place] = septets | (lengths[there] > place + 1).astype(np.uint8) << 7
    return octets.tobytes()
