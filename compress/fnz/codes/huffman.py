"""Canonical Huffman codes of up to 256 symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.fnz.codes.byte_reader import Reader, damaged, varint
from compress.fnz.codes.element_kinds import Symbols
from compress.fnz.codes.probability_tables import Counts, read_row, row_size, write_row

LONGEST = 15
_PIECE = 1 << 16  # bytes whose bits are looked up at a time


def code_lengths(counts: Counts) -> Counts:
    """Bits of each symbol's code, at most 15, for two symbols at least; 0 for one that does not occur.

    >>> code_lengths(np.array([5, 0, 1, 1]))
    array([1, 0, 2, 2])
    """
    lengths = _unlimited(counts)
    while lengths.max() > LONGEST:
        counts = counts + 1 >> 1
        lengths = _unlimited(counts)
    return lengths


def huffman_size(lengths: Counts, counts: Counts) -> int:
    """Bytes of :func:`encode_huffman` for so many symbols of each kind."""
    packed = -(-int(counts @ lengths) // 8)
    return 1 + row_size(lengths) + len(varint(packed)) + packed


def encode_huffman(symbols: Symbols, lengths: Counts) -> bytes:
    """The lengths, and the codes one after the other, each from its highest bit."""
    parameter, row = write_row(lengths)
    ends = np.cumsum(lengths[symbols])
    bits = np.zeros(int(ends[-1]), np.uint8)
    codes = _codes(lengths)
    for place in range(1, int(lengths.max()) + 1):  # counted from the lowest bit
        long = lengths[symbols] >= place
        bits[ends[long] - place] = codes[symbols[long]] >> place - 1 & 1
    packed = np.packbits(bits).tobytes()
    return bytes([parameter]) + row + varint(len(packed)) + packed


def decode_huffman(reader: Reader, symbols: int, count: int) -> Symbols:
    """``count`` symbols out of so many."""
    lengths = read_row(reader, symbols, reader.byte(), LONGEST)
    if (2.0 ** -lengths[lengths > 0]).sum() != 1:
        raise damaged("the lengths of its codes do not fit together")
    order = np.lexsort((np.arange(symbols), lengths))
    order = order[lengths[order] > 0]
    longest = int(lengths.max())
    table = np.repeat(order, 1 << longest - lengths[order]).astype(np.uint8)
    data = reader.take(reader.varint(len(reader.data)))
    return _look_up(data, table, lengths.astype(np.uint8)[table], longest, count)


def _unlimited(counts: Counts) -> Counts:
    """Two queues: leaves by their counts, and joined nodes, which come about in that order."""
    present = np.flatnonzero(counts)
    leaves = present[np.argsort(counts[present], kind="stable")]
    weights: list[int] = counts[leaves].tolist()
    parents = [0] * (2 * len(leaves) - 1)
    leaf, joined = 0, len(leaves)
    for node in range(len(leaves), len(parents)):
        weight = 0
        for _ in range(2):
            if joined == node or (leaf < len(leaves) and weights[leaf] <= weights[joined]):
                child, leaf = leaf, leaf + 1
            else:
                child, joined = joined, joined + 1
            parents[child] = node
            weight += weights[child]
        weights.append(weight)
    depths = [0] * len(parents)
    for node in reversed(range(len(parents) - 1)):
        depths[node] = depths[parents[node]] + 1
    lengths = np.zeros(len(counts), np.int64)
    lengths[leaves] = depths[: len(leaves)]
    return lengths


def _codes(lengths: Counts) -> NDArray[np.int64]:
    """Shorter codes first, and of equal length in the order of the symbols."""
    codes = np.zeros(len(lengths), np.int64)
    code = last = 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)).tolist():
        length = int(lengths[symbol])
        if length:
            code <<= length - last
            codes[symbol], last = code, length
            code += 1
    return codes


def _look_up(data: bytes, table: Symbols, lengths: Symbols, longest: int, count: int) -> Symbols:
    """Every bit is taken for the beginning of a code; then codes are followed from one to the next."""
    found: list[Symbols] = []
    bit, left = 0, count
    for start in range(0, len(data), _PIECE):
        windows = _windows(data[start : start + _PIECE + 2], min(_PIECE, len(data) - start), longest)
        steps, starts = lengths[windows].tobytes(), list[int]()
        while bit < len(steps) and left:
            starts.append(bit)
            bit += steps[bit]
            left -= 1
        found.append(table[windows[starts]])
        bit -= len(steps)
        if not left:
            break
    if left or start + _PIECE < len(data) or not -8 < bit <= 0:
        raise damaged("a stream has another length than its symbols")
    return np.concatenate(found)


def _windows(data: bytes, size: int, longest: int) -> NDArray[Any]:
    """The ``longest`` bits that begin at each bit of the first ``size`` bytes."""
    padded = np.frombuffer(data + bytes(2), np.uint8).astype(np.uint32)
    three = padded[:size] << 16 | padded[1 : size + 1] << 8 | padded[2 : size + 2]
    shifts = np.arange(24 - longest, 16 - longest, -1, dtype=np.uint32)
    return (three[:, None] >> shifts & np.uint32((1 << longest) - 1)).reshape(-1)
