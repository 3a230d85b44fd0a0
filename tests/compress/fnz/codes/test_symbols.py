"""Huffman codes, tables and rows of bytes, held against the textbook."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from compress.fnz.codes.byte_reader import Reader
from compress.fnz.codes.huffman import LONGEST, code_lengths, decode_huffman, encode_huffman, huffman_size
from compress.fnz.codes.probability_tables import TOTAL, fitting_table, read_table
from compress.fnz.codes.symbols import decode_symbols, encode_symbols


def least_bits(counts: np.ndarray) -> int:
    """Huffman's sum: each join costs the weight of what is joined."""
    heap = [count for count in counts.tolist() if count]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        total += joined
        heapq.heappush(heap, joined)
    return total


COUNTS = {
    "two": np.array([1, 1]),
    "unequal": np.array([5, 0, 1, 1, 90]),
    "many": np.random.default_rng(0).integers(1, 1000, 256),
    "bell": np.rint(3000 * np.exp(-(np.linspace(-2.5, 2.5, 200) ** 2))).astype(np.int64),
}


@pytest.mark.parametrize("name", COUNTS)
def test_codes_are_the_shortest_there_are(name: str) -> None:
    lengths = code_lengths(COUNTS[name])
    assert COUNTS[name] @ lengths == least_bits(COUNTS[name])
    assert ((lengths > 0) == (COUNTS[name] > 0)).all()


def test_codes_have_at_most_15_bits_where_the_shortest_would_have_more() -> None:
    counts = np.array([1, 1, *np.cumprod(np.full(24, 2))])
    lengths = code_lengths(counts)
    assert lengths.max() <= LONGEST
    assert (2.0**-lengths).sum() == 1
    assert counts @ lengths < 1.01 * least_bits(counts)


@pytest.mark.parametrize("size", [1, 7, 5000, 300_000])
@pytest.mark.parametrize("kinds", [2, 30, 256])
def test_huffman_codes_are_decoded(size: int, kinds: int) -> None:
    """The longest are more bytes than are looked at together."""
    generator = np.random.default_rng(size)
    symbols = np.minimum(generator.geometric(min(3 / kinds, 0.6), size), kinds - 1).astype(np.uint8)
    symbols[:2] = [0, kinds - 1][:size]
    counts = np.bincount(symbols, minlength=kinds)
    if (counts > 0).sum() < 2:
        counts[-1] += 1
    lengths = code_lengths(counts)
    coded = encode_huffman(symbols, lengths)
    assert len(coded) == huffman_size(lengths, np.bincount(symbols, minlength=kinds))
    reader = Reader(coded + b"more")
    assert (decode_huffman(reader, kinds, size) == symbols).all()
    assert reader.take(4) == b"more"


@pytest.mark.parametrize("name", COUNTS)
def test_tables_come_back_and_cost_little(name: str) -> None:
    counts = COUNTS[name]
    table = fitting_table(counts)
    assert table.frequencies.sum() == TOTAL
    assert table.frequencies.min() > 0
    assert (read_table(Reader(table.data), len(counts)) == table.frequencies).all()
    present = counts[counts > 0]
    least = present @ -np.log2(present / present.sum())
    taken = counts @ -np.log2(table.frequencies / TOTAL) + 8 * len(table.data)
    assert taken < 1.001 * least + 8 * len(counts) + 16


@pytest.mark.parametrize("low", [0, 100])
@pytest.mark.parametrize("highest", [0, 1, 2, 6, 15, 100, 155])
@pytest.mark.parametrize("size", [1, 9, 4000])
def test_rows_of_bytes_come_back(low: int, highest: int, size: int) -> None:
    generator = np.random.default_rng(highest)
    for symbols in (
        generator.integers(low, low + highest, size, endpoint=True),
        low + np.minimum(generator.geometric(0.5, size), highest),
        low + np.arange(size) % (highest + 1),
    ):
        reader = Reader(encode_symbols(symbols.astype(np.uint8)))
        assert (decode_symbols(reader, size) == symbols).all()
        reader.finish()
    assert len(encode_symbols(np.full(size, low, np.uint8))) == 3
