"""Codes the positions of the elements that are not zero."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compress.fnz.codes.ans import AnsDecoder, AnsModel, ans_model, encode_ans
from compress.fnz.codes.byte_reader import Reader, damaged, varint
from compress.fnz.codes.element_kinds import Symbols
from compress.fnz.codes.probability_tables import MOST_EIGHTHS, TOTAL, Counts, chance
from compress.fnz.codes.symbols import decode_symbols, encode_symbols

Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]

_PIECE = 1 << 20  # gaps that are added up at a time

_FILLER = 255  # so many zeros, and no element after them
_EMPTY = 15  # the level of a row or column of zeros; denser ones have lower levels
_NEVER = MOST_EIGHTHS
_FINENESS = 0, 1, 2, 3  # half so many levels for each halving of the density; 0: empty or not


def encode_gaps(positions: Positions) -> bytes:
    """The zeros before each element, as in Deep Compression (Han et al., arXiv 1510.00149): numbers of 8 bits, with
    fillers where there are more zeros.
    """
    gaps = np.diff(positions, prepend=-1) - 1
    fillers = gaps // _FILLER
    symbols = np.full(len(gaps) + int(fillers.sum()), _FILLER, np.uint8)
    symbols[np.cumsum(fillers + 1) - 1] = gaps % _FILLER
    return varint(len(symbols)) + encode_symbols(symbols)


def decode_gaps(reader: Reader, count: int) -> Mask:
    """Where elements are, (count,), from what :func:`encode_gaps` wrote."""
    reader.labels.append("gaps")
    symbols = decode_symbols(reader, reader.varint(count))
    mask, end = np.zeros(count, np.bool_), 0
    for at in range(0, len(symbols), _PIECE):
        piece = symbols[at : at + _PIECE]
        ends = end + np.cumsum(piece.astype(np.int64) + (piece != _FILLER))
        end = int(ends[-1])
        if end > count:
            raise damaged(f"a gap ends behind the {count} elements")
        mask[ends[piece != _FILLER] - 1] = True
    return mask


def encode_grid(positions: Positions, count: int, rows: int) -> bytes:
    """Zero or not, for each element of a matrix, by a chance that depends on the levels of its row and column."""
    columns = count // rows
    row, column = np.divmod(positions, columns)
    best = _best_levels(row, column, (rows, columns))
    classes, elements = _classes(*best), np.zeros((rows, columns), np.uint8)
    elements[row, column] = 1
    chances, parts = bytearray(), []
    for number in np.flatnonzero(_cells(*best)).tolist():
        symbols = elements[classes == number]
        chances.append(_eighths(int(symbols.sum()), len(symbols)))
        parts.append((symbols, _pair(chances[-1])))
    return varint(rows) + b"".join(map(encode_symbols, best)) + bytes(chances) + encode_ans(parts)


def decode_grid(reader: Reader, count: int) -> Mask:
    """Where elements are, (count,), from what :func:`encode_grid` wrote."""
    rows = reader.varint(count)
    if not rows or count % rows:
        raise damaged(f"{count} elements have no {rows} equal rows")
    reader.labels.append("grid")
    levels = decode_symbols(reader, rows), decode_symbols(reader, count // rows)
    if max(int(side.max()) for side in levels) > _EMPTY:
        raise damaged(f"a level must be at most {_EMPTY}")
    classes, cells = _classes(*levels), _cells(*levels)
    chances = reader.take(int(np.count_nonzero(cells)))
    if chances and max(chances) > _NEVER:
        raise damaged(f"a chance must be at most {_NEVER}, got {max(chances)}")
    elements, decoder = np.zeros((rows, count // rows), np.bool_), AnsDecoder(reader)
    for number, chance_of_one in zip(np.flatnonzero(cells).tolist(), chances, strict=True):
        elements[classes == number] = decoder.take(int(cells[number]), _pair(chance_of_one))
    decoder.finish()
    return elements.reshape(-1)


def _best_levels(row: Positions, column: Positions, shape: tuple[int, int]) -> tuple[Symbols, Symbols]:
    """Those of the columns first, then those of the rows beside them; one level for all where no more are worth it."""
    down = np.zeros(shape[0], np.uint8)
    if shape[0] == 1:
        return down, np.zeros(shape[1], np.uint8)
    across = min(_choices(column, shape[1]), key=lambda side: _estimated_bits(down, side, row, column))
    return min(_choices(row, shape[0]), key=lambda side: _estimated_bits(side, across, row, column)), across


def _choices(place: Positions, size: int) -> Iterator[Symbols]:
    elements = np.bincount(place, minlength=size)
    halvings = np.log2(elements.max() / np.maximum(elements, 1))
    yield np.zeros(size, np.uint8)
    for fineness in _FINENESS:
        levels = np.minimum(np.rint(fineness / 2 * halvings), _EMPTY - 1)
        yield np.where(elements, levels, _EMPTY).astype(np.uint8)


def _cells(down: Symbols, across: Symbols) -> Counts:
    """The elements in rows and columns that are not empty, by the sum of their levels (30,)."""
    rows, columns = (np.bincount(side, minlength=_EMPTY)[:_EMPTY] for side in (down, across))
    return np.append(np.convolve(rows, columns), 0)


def _classes(down: Symbols, across: Symbols) -> Symbols:
    """The sum of the levels of row and column; no number of a class where one of them is empty."""
    classes: Symbols = down[:, None] + across
    classes[down == _EMPTY] = classes[:, across == _EMPTY] = 2 * _EMPTY
    return classes


def _estimated_bits(down: Symbols, across: Symbols, row: Positions, column: Positions) -> float:
    cells = _cells(down, across)
    elements = np.bincount(down[row] + across[column], minlength=len(cells))
    bits = _weighted_logs(cells) - _weighted_logs(elements) - _weighted_logs(cells - elements)
    for side in (down, across):
        levels = np.bincount(side)
        bits += _weighted_logs(levels.sum()) - _weighted_logs(levels) + 4 * np.count_nonzero(levels)
    return bits + 8 * np.count_nonzero(cells)


def _weighted_logs(counts: Counts) -> float:
    return float((counts * np.log2(np.maximum(counts, 1))).sum())


def _eighths(elements: int, cells: int) -> int:
    return min(round(-8 * np.log2(elements / cells)), _NEVER) if elements else _NEVER


def _pair(eighths: int) -> AnsModel:
    return ans_model(np.array([TOTAL - chance(eighths), chance(eighths)]))
