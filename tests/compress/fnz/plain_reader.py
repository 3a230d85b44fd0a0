"""A reader of .fnz files after docs/fnz.md, one symbol at a time; it shares no line with the package."""

from __future__ import annotations

import hashlib
import lzma
import struct
import zlib

Words = list[int]

KINDS = [(1, "u"), (1, "s"), (1, "n"), (2, "u"), (2, "s"), (2, "f"), (4, "u"), (4, "s"), (4, "f"), (8, "u"), (8, "s"), (8, "f")]  # fmt: skip
E = [65536, 60097, 55109, 50535, 46341, 42495, 38968, 35734]
LZMA = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 22, "lc": 3, "lp": 0, "pb": 2}]


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value, shift = 0, 0
        while (byte := self.byte()) & 128:
            value, shift = value | (byte & 127) << shift, shift + 7
        return value | byte << shift

    def bits(self) -> Bits:
        return Bits(self)


class Bits:
    def __init__(self, source: Bytes) -> None:
        self.source, self.waiting = source, list[int]()

    def bit(self) -> int:
        if not self.waiting:
            self.waiting = [int(c) for c in f"{self.source.byte():08b}"]
        return self.waiting.pop(0)

    def number(self, bits: int) -> int:
        value = 0
        for _ in range(bits):
            value = 2 * value + self.bit()
        return value


def unlzma(data: bytes) -> bytes:
    return lzma.decompress(data, lzma.FORMAT_RAW, filters=LZMA)


def decode(data: bytes) -> bytes:
    magic, version, size, directory_size, packed, blocks, padding, method, crc, sha, head_crc = struct.unpack_from(
        "<4sBIIIIIBI32sI", data
    )
    assert (magic, version, head_crc) == (b"\x8bFNZ", 1, zlib.crc32(data[:62]))
    body = data[66:]
    assert len(body) == packed + blocks + padding
    assert crc == zlib.crc32(body[: packed + blocks])
    directory = [lambda d: d, zlib.decompress, unlzma][method](body[:packed])
    assert len(directory) == directory_size
    onnx = assemble(Bytes(directory), body[packed : packed + blocks])
    assert (len(onnx), hashlib.sha256(onnx).digest()) == (size, sha)
    return onnx


def assemble(directory: Bytes, data: bytes) -> bytes:
    lengths = [directory.varint() for _ in range(directory.varint())]
    tensors = []
    for _ in range(directory.varint()):
        gap, size, kind = directory.varint(), directory.varint(), directory.byte()
        width, form = KINDS[kind & 127]
        count = directory.varint() if kind & 128 else size * 2 if form == "n" else size // width
        tensors.append((gap, kind, count, directory.varint()))
    words, at = [], 0
    for number, length in enumerate(lengths):
        mine = [t for t in tensors if t[3] == number]
        block = Bytes(data[at : at + length])
        words.append(read_block(block, block.byte(), sum(t[2] for t in mine), *KINDS[mine[0][1] & 127]))
        assert block.at == length
        at += length
    out = b""
    for gap, kind, count, block_number in tensors:
        mine, words[block_number] = words[block_number][:count], words[block_number][count:]
        out += directory.take(gap) + to_bytes(mine, kind)
    return out + directory.take(len(directory.data) - directory.at)


def to_bytes(words: Words, kind: int) -> bytes:
    width, form = KINDS[kind & 127]
    if kind & 128:
        return b"".join(
            protobuf_int32(w - (1 << 8 * width) if form == "s" and w >> 8 * width - 1 else w) for w in words
        )
    if form == "n":
        return bytes(low | high << 4 for low, high in zip(words[::2], words[1::2], strict=True))
    return b"".join(w.to_bytes(width, "little") for w in words)


def protobuf_int32(value: int) -> bytes:
    value, out = value % 2**64, []
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def read_block(block: Bytes, coding: int, count: int, width: int, form: str) -> Words:
    read = read_symbols
    if coding == 4:
        coding, read = block.byte(), read_contexts
    if coding == 0:
        planes = [read(block, count) for _ in range(width)]
        return [
            turn_back(sum(b << 8 * i for i, b in enumerate(reversed(word))), width, form)
            for word in zip(*planes, strict=True)
        ]
    if coding == 1:
        size = block.byte() + 1
        values = [int.from_bytes(block.take(width), "little") for _ in range(size)]
        return [values[i] for i in read(block, count)]
    there = read_gaps(block, count) if coding == 2 else read_grid(block, count)
    elements = iter(read_block(block, block.byte(), sum(there), width, form))
    return [next(elements) if yes else 0 for yes in there]


def turn_back(word: int, width: int, form: str) -> int:
    bits = 8 * width
    if form == "f":
        return word >> 1 | (word & 1) << bits - 1
    if form == "s":
        return word ^ 128 if width == 1 else (-(word + 1) // 2 if word & 1 else word // 2) % (1 << bits)
    return word


def read_gaps(block: Bytes, count: int) -> list[bool]:
    there: list[bool] = []
    for symbol in read_symbols(block, block.varint()):
        there += [False] * symbol + [True] * (symbol < 255)
    return there + [False] * (count - len(there))


def read_grid(block: Bytes, count: int) -> list[bool]:
    rows = block.varint()
    down, across = read_symbols(block, rows), read_symbols(block, count // rows)
    classes = sorted({r + c for r in down for c in across if r < 15 > c})
    frequency = {k: min(max(E[(c := block.byte()) % 8] * 16 >> c // 8, 1), 2**20 - 1) for k in classes}
    stream, there = Ans(block), [[False] * len(across) for _ in down]
    for k in classes:
        for i, r in enumerate(down):
            for j, c in enumerate(across):
                if r + c == k and r < 15 > c:
                    there[i][j] = stream.symbol([2**20 - frequency[k], frequency[k]]) == 1
    return [yes for row in there for yes in row]


def read_contexts(block: Bytes, count: int) -> Words:
    flags, rows, lag, prior = block.byte(), block.varint(), block.varint(), block.varint()
    stride, columns = flags & 127, count // rows
    weights = block.take(8)
    low, high, center, cycle, levels = block.take(5)
    limits = [0] * levels
    for level in range(1, levels):
        limits[level] = limits[level - 1] + block.varint()
    tables = [read_table(block, high - low + 1) for _ in range(levels)]
    stream = Ans(block)
    order = {1: [0], 2: [0, 1], 4: [0, 2, 1, 3], 8: [0, 4, 2, 6, 1, 5, 3, 7]}[stride]
    matrix, magnitudes = list[Words](), list[Words]()
    for row in range(rows):
        means = [(16 * sum(m[c] for m in magnitudes) + prior) // (row + 1) for c in range(columns)]
        found, known = [0] * columns, dict[int, int]()
        for first in order:
            row_mean = (16 * sum(known.values()) + prior) // (len(known) + 1)
            estimates = [16 * known[c] if c in known else means[c] for c in range(columns)]
            level_of = {}
            for c in range(first, columns, stride):

                def around(values: Words, far: int, c: int = c) -> int:
                    return (values[max(c - far, 0)] + values[min(c + far, columns - 1)]) // 2

                above = 16 * magnitudes[-1][c] if magnitudes else 0
                traits = [means[c], row_mean, around(estimates, 1), around(estimates, lag), above]
                traits += [around(means, 1), around(means, lag), min(means[c] * row_mean // max(prior, 1), 4096)]
                total = sum(w * t for w, t in zip(weights, traits, strict=True))
                level_of[c] = sum(total >= limit for limit in limits[1:])
            for c in sorted(level_of, key=lambda c: (level_of[c], c)):
                found[c] = low + stream.symbol(tables[level_of[c]])
            for c in level_of:
                distance = (found[c] - center) % (cycle + 1)
                known[c] = min(distance, cycle + 1 - distance)
        matrix.append(found)
        magnitudes.append([known[c] for c in range(columns)])
    if flags & 128:
        return [row[c] for c in range(columns) for row in matrix]
    return [symbol for row in matrix for symbol in row]


def read_table(block: Bytes, n: int) -> Words:
    head = block.byte()
    eighths = [head // 16 * c for c in read_row(block, n, head % 16)]
    weights = [max(E[c % 8] * 4096 >> c // 8, 1) for c in eighths]
    frequencies = [w * (2**20 - n) // sum(weights) + 1 for w in weights]
    frequencies[frequencies.index(max(frequencies))] += 2**20 - sum(frequencies)
    return frequencies


def read_symbols(block: Bytes, count: int) -> Words:
    if not count:
        return []
    method, low, high = block.take(3)
    n = high - low + 1
    if method == 0:
        bits, width = block.bits(), (n - 1).bit_length()
        return [low + bits.number(width) for _ in range(count)]
    if method == 1:
        return [low + s for s in read_huffman(block, n, count)]
    if method == 2:
        frequencies, stream = read_table(block, n), Ans(block)
        return [low + stream.symbol(frequencies) for _ in range(count)]
    return list(unlzma(block.take(block.varint())))


def read_row(block: Bytes, count: int, parameter: int) -> Words:
    row, bits = [block.byte()], block.bits()
    for _ in range(count - 1):
        ones = 0
        while bits.bit():
            ones += 1
        v = ones << parameter | bits.number(parameter)
        row.append(row[-1] + (-(v + 1) // 2 if v % 2 else v // 2))
    return row


def read_huffman(block: Bytes, n: int, count: int) -> Words:
    lengths = read_row(block, n, block.byte())
    codes, code = {}, 0
    for length in range(1, 16):
        code *= 2
        for symbol in range(n):
            if lengths[symbol] == length:
                codes[length, code], code = symbol, code + 1
    bits, symbols = Bytes(block.take(block.varint())).bits(), []
    for _ in range(count):
        length = code = 0
        while (length, code) not in codes:
            length, code = length + 1, 2 * code + bits.bit()
        symbols.append(codes[length, code])
    return symbols


class Ans:
    def __init__(self, block: Bytes) -> None:
        self.words = [int.from_bytes(block.take(4), "little") for _ in range(block.varint())]
        self.x = 0
        for _ in range(min(2, len(self.words))):
            self.x = self.x << 32 | self.words.pop()

    def symbol(self, frequencies: list[int]) -> int:
        n, rest = len(frequencies), self.x % 2**24
        before, i = 0, 0
        while i < n - 1 and ((before + frequencies[i]) * (2**24 - n) >> 20) + i + 1 <= rest:
            before, i = before + frequencies[i], i + 1
        begin = (before * (2**24 - n) >> 20) + i
        end = 2**24 if i == n - 1 else ((before + frequencies[i]) * (2**24 - n) >> 20) + i + 1
        self.x = (self.x >> 24) * (end - begin) + rest - begin
        if self.x < 2**32 and self.words:
            self.x = self.x << 32 | self.words.pop()
        return i
