"""Matrices whose elements resemble their neighbors are coded near the entropy that the neighbors leave."""

from __future__ import annotations

import numpy as np
import pytest

from compress.fnz.codes.byte_reader import Reader
from compress.fnz.codes.context_coding import decode_contexts, encode_contexts
from compress.fnz.codes.symbols import encode_symbols
from tests.compress.fnz.files import Array

MUCH = 1 << 30


def drawn(rows: int, columns: int, seed: int = 0) -> tuple[Array, float]:
    """Symbols around 128 whose spread depends on row and column, and the bits that they take for who knows it."""
    generator = np.random.default_rng(seed)
    spread = generator.lognormal(0, 1, (rows, 1)) * np.exp(1.2 * np.sin(np.arange(columns) / 7)) * 2
    numbers = np.clip(np.rint(generator.laplace(0, spread)), -100, 100)
    edges = np.minimum(np.abs(numbers) + 0.5, 1e3)
    upper = 1 - np.exp(-edges / spread)
    chance = np.where(numbers == 0, upper, (np.exp(-(edges - 1) / spread) - np.exp(-edges / spread)) / 2)
    return (numbers + 128).astype(np.uint8).reshape(-1), float(-np.log2(np.maximum(chance, 1e-9)).sum())


@pytest.mark.parametrize(("rows", "columns"), [(2, 40), (40, 2), (7, 300), (300, 70), (64, 1000), (512, 257)])
def test_what_is_coded_comes_back(rows: int, columns: int) -> None:
    symbols, _ = drawn(rows, columns)
    for given, cycle in ((symbols, 256), (symbols % 16, 16), (symbols % 3 + 7, 256)):
        coded = encode_contexts(given, rows, cycle, MUCH)
        assert coded is not None
        reader = Reader(coded)
        assert np.array_equal(decode_contexts(reader, len(given)), given)
        reader.finish()


def test_neighbors_save_most_of_what_they_tell() -> None:
    symbols, least = drawn(200, 800)
    coded = encode_contexts(symbols, 200, 256, MUCH)
    assert coded is not None
    alone = 8 * len(encode_symbols(symbols))
    assert 8 * len(coded) < 1.04 * least
    assert 8 * len(coded) < 0.9 * alone


def test_what_would_not_be_smaller_is_not_made() -> None:
    symbols, _ = drawn(64, 64)
    assert encode_contexts(symbols, 64, 256, 100) is None
    assert encode_contexts(symbols, 1, 256, MUCH) is None  # no row above
    assert encode_contexts(np.full(4096, 7, np.uint8), 64, 256, MUCH) is None  # nothing to tell apart
    assert encode_contexts(symbols[:400], 20, 256, MUCH) is None  # rows and columns of 20
