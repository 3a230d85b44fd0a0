"""Codes the words of one or several tensors by whichever method makes them smallest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compress.fnz.codes.byte_reader import Reader, damaged
from compress.fnz.codes.codebook import Codebook, decode_codebook, encode_codebook, find_codebook, with_zeros
from compress.fnz.codes.element_kinds import Kind, Words, from_planes, planes
from compress.fnz.codes.symbols import decode_symbols, encode_symbols
from compress.fnz.codes.zero_positions import decode_gaps, decode_grid, encode_gaps, encode_grid

PLANES, CODEBOOK, GAPS, GRID = range(4)

_SPARSE = 0.5  # the share of zeros from which it is tried to leave them out
_SHORT = 4096  # words so few that a codebook may take more than it saves
_LARGEST_GRID = 1 << 28


def encode_block(words: Words, kind: Kind, rows: int = 1) -> bytes:
    """The smallest coding of the words of a tensor that has so many ``rows``."""
    if 0 < np.count_nonzero(words) <= (1 - _SPARSE) * len(words):
        return min(_sparse(words, np.flatnonzero(words), kind, rows), key=len)
    return min(_dense(words, find_codebook(words, kind), kind), key=len)


def decode_block(reader: Reader, count: int, kind: Kind) -> Words:
    """The inverse of :func:`encode_block`, for ``count`` words."""
    method = reader.byte()
    if method not in (GAPS, GRID):
        return _decode_dense(reader, method, count, kind)
    mask = decode_gaps(reader, count) if method == GAPS else decode_grid(reader, count)
    words = np.zeros(count, f"<u{kind.width}")
    words[mask] = _decode_dense(reader, reader.byte(), int(np.count_nonzero(mask)), kind)
    return words


def _dense(words: Words, book: Codebook | None, kind: Kind) -> Iterator[bytes]:
    if book is not None and (kind.width > 1 or 2 * len(book.values) <= np.ptp(planes(words, kind)[0])):
        yield bytes([CODEBOOK]) + encode_codebook(book)
    if book is None or kind.width == 1 or len(words) < _SHORT:
        yield bytes([PLANES]) + b"".join(map(encode_symbols, planes(words, kind)))


def _sparse(words: Words, positions: NDArray[np.int64], kind: Kind, rows: int) -> Iterator[bytes]:
    values = words[positions]
    book = find_codebook(values, kind)
    coded = min(_dense(values, book, kind), key=len)
    yield bytes([GAPS]) + encode_gaps(positions) + coded
    if len(words) <= _LARGEST_GRID:
        yield bytes([GRID]) + encode_grid(positions, len(words), rows) + coded
    everything = None if book is None else with_zeros(book, positions, len(words))
    if everything is not None:
        yield bytes([CODEBOOK]) + encode_codebook(everything)


def _decode_dense(reader: Reader, method: int, count: int, kind: Kind) -> Words:
    if method == CODEBOOK:
        return decode_codebook(reader, count, kind)
    if method != PLANES:
        raise damaged(f"no coding has the number {method}")
    reader.labels.append("planes")
    return from_planes([decode_symbols(reader, count) for _ in range(kind.width)], kind)
