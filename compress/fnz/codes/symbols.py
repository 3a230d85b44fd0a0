"""Codes a sequence of bytes with whichever method gives the smallest result."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from compress.fnz.codes.ans import AnsDecoder, ans_model, encode_ans
from compress.fnz.codes.byte_reader import Reader, damaged, varint
from compress.fnz.codes.element_kinds import Symbols
from compress.fnz.codes.huffman import code_lengths, decode_huffman, encode_huffman, huffman_size
from compress.fnz.codes.probability_tables import Counts, fitting_table, read_table

SymbolDecoder = Callable[[Reader, int], Symbols]
"""Reads so many symbols."""

PACKED, HUFFMAN, ANS, LZMA = range(4)

_PIECE = 1 << 20  # symbols that are unpacked to bits at a time; a multiple of 8
_SAMPLE = 8192
_WORTH_IT = 0.9  # of what the best other coding takes: below that, sequences repeat themselves
_INCOMPRESSIBLE = 0.998


def encode_symbols(symbols: Symbols) -> bytes:
    """The smallest of bits of a fixed number, Huffman codes, ANS and LZMA, and what it is.

    >>> len(encode_symbols(np.zeros(1000, np.uint8)))
    3
    """
    if not len(symbols):
        return b""
    counts = np.bincount(symbols, minlength=256)
    present = np.flatnonzero(counts)
    low, high = int(present[0]), int(present[-1])
    coded = _smallest(symbols - np.uint8(low), counts[low : high + 1])
    coded = coded[:1] + bytes([low, high]) + coded[1:]
    if not _repeats(symbols, len(coded)):
        return coded
    packed = pack(symbols.tobytes())
    return min(coded, bytes([LZMA, low, high]) + varint(len(packed)) + packed, key=len)


def decode_symbols(reader: Reader, count: int) -> Symbols:
    """The inverse of :func:`encode_symbols`, for ``count`` symbols."""
    if not count:
        return np.empty(0, np.uint8)
    method, low, high = reader.take(3)
    if low > high:
        raise damaged(f"the lowest symbol must be at most the highest, got {low} and {high}")
    if method == LZMA:
        reader.labels.append("LZMA")
        return np.frombuffer(unpack(reader.take(reader.varint(len(reader.data))), count), np.uint8)
    if method == PACKED:
        return _read_bits(reader, high - low, count) + np.uint8(low)
    if low == high or method not in (HUFFMAN, ANS):
        raise damaged(f"no coding has the number {method}")
    reader.labels.append("Huffman" if method == HUFFMAN else "ANS")
    if method == HUFFMAN:
        return decode_huffman(reader, high - low + 1, count) + np.uint8(low)
    frequencies = read_table(reader, high - low + 1)
    decoder = AnsDecoder(reader)
    symbols = decoder.take(count, ans_model(frequencies))
    decoder.finish()
    return symbols + np.uint8(low)


def pack(data: bytes) -> bytes:
    """A bare LZMA1 stream with an end mark, lc 3, lp 0, pb 2, a dictionary of 4 MiB."""
    return lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)


def unpack(data: bytes, size: int) -> bytes:
    """``size`` bytes of such a stream; no more memory than that is taken."""
    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
        unpacked = decoder.decompress(data, size + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise damaged(f"an LZMA stream is broken ({error})") from None
    if len(unpacked) != size:
        raise damaged(f"an LZMA stream must hold {size} bytes, got {len(unpacked)}")
    return unpacked


_FILTERS: list[dict[str, Any]] = [
    {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 22, "lc": 3, "lp": 0, "pb": 2}
]


def _smallest(shifted: Symbols, counts: Counts) -> bytes:
    bits = (len(counts) - 1).bit_length()
    fixed = -(-len(shifted) * bits // 8)
    if _entropy_bytes(counts) >= _INCOMPRESSIBLE * fixed:
        return bytes([PACKED]) + _bits(shifted, bits)
    table = fitting_table(counts)
    ans = table.data + encode_ans([(shifted, ans_model(table.frequencies))])
    lengths = code_lengths(counts)
    smallest = min(fixed, len(ans), huffman_size(lengths, counts))
    if smallest == fixed:
        return bytes([PACKED]) + _bits(shifted, bits)
    return bytes([ANS]) + ans if smallest == len(ans) else bytes([HUFFMAN]) + encode_huffman(shifted, lengths)


def _entropy_bytes(counts: Counts) -> float:
    present = counts[counts > 0]
    return float(present @ -np.log2(present / present.sum())) / 8


def _repeats(symbols: Symbols, coded: int) -> bool:
    """Whether a sample says that sequences are worth more than the symbols alone."""
    middle = max(len(symbols) - _SAMPLE, 0) // 2
    sample = symbols[middle : middle + _SAMPLE]
    expected = min(coded * len(sample) / len(symbols), len(sample))
    return expected > 48 and len(zlib.compress(sample.tobytes(), 6)) < _WORTH_IT * expected


def _bits(shifted: Symbols, bits: int) -> bytes:
    """The lowest ``bits`` of each symbol, highest first."""
    if bits in (0, 8):
        return shifted.tobytes() if bits else b""
    pieces = (shifted[at : at + _PIECE] for at in range(0, len(shifted), _PIECE))
    return b"".join(np.packbits(np.unpackbits(p[:, None], axis=1)[:, 8 - bits :]).tobytes() for p in pieces)


def _read_bits(reader: Reader, highest: int, count: int) -> Symbols:
    bits = highest.bit_length()
    data = np.frombuffer(reader.take(-(-count * bits // 8)), np.uint8)
    reader.labels += [f"{bits} bits"] if bits else []
    if bits in (0, 8):
        return data.copy() if bits else np.zeros(count, np.uint8)
    symbols = np.empty(count, np.uint8)
    for at in range(0, count, _PIECE):
        size = min(_PIECE, count - at)
        part = np.unpackbits(data[at * bits // 8 : -(-(at + size) * bits // 8)])[: size * bits].reshape(size, bits)
        symbols[at : at + size] = np.packbits(np.pad(part, ((0, 0), (8 - bits, 0))), axis=1)[:, 0]
    return symbols
