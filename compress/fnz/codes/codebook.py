"""Codes tensors with few distinct values: the values once, and an index for each element."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.fnz.codes.byte_reader import Reader, damaged
from compress.fnz.codes.element_kinds import Kind, Symbols, Words
from compress.fnz.codes.symbols import SymbolDecoder, decode_symbols, encode_symbols

MOST_VALUES = 256

_SAMPLE = 4096
_PIECE = 1 << 18  # words that are looked up at a time


@dataclass(frozen=True, slots=True)
class Codebook:
    """``values[indices]`` are the words."""

    values: Words
    indices: Symbols


def find_codebook(words: Words, kind: Kind) -> Codebook | None:
    """The distinct words in the order of the numbers that they stand for, or None where there are more than 256."""
    if kind.width == 1:
        return _codebook_of_bytes(words, kind)
    values = _distinct(words[:: max(len(words) // _SAMPLE, 1)][:_SAMPLE])
    indices = None
    while indices is None:
        if len(values) > MOST_VALUES:
            return None
        values, indices = _indexed(words, values)
    order = _numeric_order(values, kind)
    places = np.empty(len(values), np.uint8)
    places[order] = np.arange(len(values))
    return Codebook(values[order], places[indices])


def with_zeros(book: Codebook, positions: NDArray[np.int64], count: int) -> Codebook | None:
    """The codebook of ``count`` words that are zero but at ``positions``, where the given one holds."""
    if len(book.values) >= MOST_VALUES:
        return None
    indices = np.zeros(count, np.uint8)
    indices[positions] = book.indices + np.uint8(1)
    return Codebook(np.concatenate([book.values[:0], np.zeros(1, book.values.dtype), book.values]), indices)


def encode_codebook(book: Codebook) -> bytes:
    """The values and the indices."""
    return encode_values(book) + encode_symbols(book.indices)


def encode_values(book: Codebook) -> bytes:
    """How many values less one, and the values."""
    return bytes([len(book.values) - 1]) + book.values.tobytes()


def decode_codebook(reader: Reader, count: int, kind: Kind, decode: SymbolDecoder = decode_symbols) -> Words:
    """The inverse of :func:`encode_codebook`, or of values and what ``decode`` reads the indices from."""
    size = reader.byte() + 1
    reader.labels.append(f"codebook of {size}")
    values = np.frombuffer(reader.take(size * kind.width), f"<u{kind.width}")
    indices = decode(reader, count)
    if count and indices.max() >= size:
        raise damaged(f"an index must be in 0..{size - 1}, got {indices.max()}")
    words = np.empty(count, values.dtype)
    for at in range(0, count, _PIECE):
        words[at : at + _PIECE] = values[indices[at : at + _PIECE]]
    return words


def _codebook_of_bytes(words: Words, kind: Kind) -> Codebook:
    values = np.flatnonzero(np.bincount(words)).astype(np.uint8)
    values = values[_numeric_order(values, kind)]
    places = np.empty(MOST_VALUES, np.uint8)
    places[values] = np.arange(len(values))
    return Codebook(values, places[words])


def _indexed(words: Words, values: Words) -> tuple[Words, Symbols | None]:
    """The index of each word, or more values where some are unknown."""
    indices = np.empty(len(words), np.uint8)
    for at in range(0, len(words), _PIECE):
        piece = words[at : at + _PIECE]
        found = np.minimum(np.searchsorted(values, piece), len(values) - 1)
        unknown = piece[values[found] != piece]
        if len(unknown):
            return np.union1d(values, _distinct(unknown)), None
        indices[at : at + _PIECE] = found
    return values, indices


def _distinct(words: Words) -> Words:
    ordered = np.sort(words)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def _numeric_order(values: Words, kind: Kind) -> NDArray[np.int64]:
    letter = {"float": "f", "signed": "i"}.get(kind.form, "u")
    return np.argsort(values.view(f"<{letter}{kind.width}"), kind="stable")
