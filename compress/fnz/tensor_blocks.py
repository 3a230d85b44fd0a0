"""Codes the words of one or several tensors with whichever method gives the smallest result."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compress.fnz.codes.byte_reader import Reader, damaged
from compress.fnz.codes.codebook import (
    Codebook,
    decode_codebook,
    encode_codebook,
    encode_values,
    find_codebook,
    with_zeros,
)
from compress.fnz.codes.context_coding import decode_contexts, encode_contexts
from compress.fnz.codes.element_kinds import Kind, Words, from_planes, planes
from compress.fnz.codes.symbols import SymbolDecoder, decode_symbols, encode_symbols
from compress.fnz.codes.zero_positions import decode_gaps, decode_grid, encode_gaps, encode_grid

PLANES, CODEBOOK, GAPS, GRID, CONTEXTS = range(5)

_SPARSE = 0.5  # the share of zeros from which it is tried to leave them out
_SHORT = 4096  # words so few that a codebook may take more than it saves
_LARGEST_GRID = 1 << 28
_FEWEST_IN_CONTEXT = 512  # words for which tables are worth their bytes


def encode_block(words: Words, kind: Kind, rows: int = 1) -> bytes:
    """The smallest coding of the words of a tensor that has so many ``rows``."""
    if 0 < np.count_nonzero(words) <= (1 - _SPARSE) * len(words):
        coded = min(_sparse(words, np.flatnonzero(words), kind, rows), key=len)
    else:
        coded = min(_dense(words, find_codebook(words, kind), kind), key=len)
    return min(coded, _in_context(words, kind, rows, len(coded)) or coded, key=len)


def decode_block(reader: Reader, count: int, kind: Kind) -> Words:
    """The inverse of :func:`encode_block`, for ``count`` words."""
    method = reader.byte()
    if method == CONTEXTS:
        symbols = reader.byte()
        if symbols == PLANES and kind.width > 1:
            raise damaged(f"words of {kind.width} bytes have no contexts but those of a codebook")
        return _decode_dense(reader, symbols, count, kind, decode_contexts)
    if method not in (GAPS, GRID):
        return _decode_dense(reader, method, count, kind)
    mask = decode_gaps(reader, count) if method == GAPS else decode_grid(reader, count)
    words = np.zeros(count, f"<u{kind.width}")
    words[mask] = _decode_dense(reader, reader.byte(), int(np.count_nonzero(mask)), kind)
    return words


def _dense(words: Words, book: Codebook | None, kind: Kind) -> Iterator[bytes]:
    if book is not None and _suits(book, words, kind):
        yield bytes([CODEBOOK]) + encode_codebook(book)
    if book is None or kind.width == 1 or len(words) < _SHORT:
        yield bytes([PLANES]) + b"".join(map(encode_symbols, planes(words, kind)))


def _suits(book: Codebook, words: Words, kind: Kind) -> bool:
    """Whether indices are clearly fewer than the words' own numbers."""
    return bool(kind.width > 1 or 2 * len(book.values) <= np.ptp(planes(words, kind)[0]))


def _in_context(words: Words, kind: Kind, rows: int, most: int) -> bytes | None:
    """Words of one byte, or the indices of a codebook, by what is around them; None where it takes more."""
    if rows == 1 or len(words) < _FEWEST_IN_CONTEXT:
        return None
    book = find_codebook(words, kind)
    if book is not None and _suits(book, words, kind):
        head, symbols, cycle = bytes([CONTEXTS, CODEBOOK]) + encode_values(book), book.indices, 256
    elif kind.width == 1:
        head, symbols = bytes([CONTEXTS, PLANES]), planes(words, kind)[0]
        cycle = 16 if kind.form == "nibbles" else 256
    else:
        return None
    coded = encode_contexts(symbols, rows, cycle, most - len(head))
    return None if coded is None else head + coded


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


def _decode_dense(reader: Reader, method: int, count: int, kind: Kind, decode: SymbolDecoder = decode_symbols) -> Words:
    if method == CODEBOOK:
        return decode_codebook(reader, count, kind, decode)
    if method != PLANES:
        raise damaged(f"no coding has the number {method}")
    reader.labels.append("planes")
    return from_planes([decode(reader, count) for _ in range(kind.width)], kind)
