"""Files that were cut off, altered or made to do harm: one clear line, in little memory."""

from __future__ import annotations

import resource
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper

from compress.fnz import decode_onnx, describe, encode_onnx, tensor_spans
from compress.fnz.codes.byte_reader import varint
from compress.fnz.codes.symbols import pack
from compress.fnz.container import largest_decoded, seal, unseal
from compress.fnz.directory import Directory, Entry, write_directory
from tests.compress.fnz.files import CODINGS, FIELDS, file_of, in_fields, network, normal, sparse
from tests.parameters import slow

FILES = {
    "codings": file_of({name: values for name, (values, coding) in CODINGS.items() if "contexts" not in coding}),
    "contexts": file_of({name: CODINGS[name][0][:12] for name in ("int8 alike", "values alike")}),
    "fields": file_of({name: tensor for name, tensor in FIELDS.items() if name != "int64_data"}),
    "int8 network": network("resnet8", "int8"),
}  # fmt: skip
HEAD = struct.Struct("<4sBIIIIIBI32s")


def one_line(error: pytest.ExceptionInfo[ValueError]) -> bool:
    return str(error.value).isprintable() and len(str(error.value)) < 300


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_and_any_cut_is_noticed(name: str) -> None:
    coded = encode_onnx(FILES[name])
    generator = np.random.default_rng(0)
    for place in [*range(66), *generator.integers(66, len(coded), 100).tolist()]:
        altered = bytearray(coded)
        altered[place] ^= 1 << int(generator.integers(8))
        with pytest.raises(ValueError, match="fnz") as error:
            decode_onnx(bytes(altered))
        assert one_line(error)
    for size in [0, 1, 4, 65, 66, len(coded) - 1, *generator.integers(0, len(coded), 20).tolist()]:
        with pytest.raises(ValueError, match="fnz"):
            decode_onnx(coded[:size])
    with pytest.raises(ValueError, match="bytes after its head"):
        decode_onnx(coded + b"\0")


@pytest.mark.parametrize("name", FILES)
def test_files_with_right_checksums_of_wrong_contents_give_the_file_or_an_error(name: str) -> None:
    """As someone would make them who wants to do harm. None may come back as another file."""
    contents = unseal(encode_onnx(FILES[name]))
    generator = np.random.default_rng(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = set()
    for round_number in range(200):
        directory, blocks = bytearray(contents.directory), bytearray(contents.blocks)
        target = (directory, blocks)[round_number % 2]
        structure = min(len(target), 600) if round_number % 4 < 2 else len(target)
        for place in generator.integers(0, structure, generator.integers(1, 4)).tolist():
            target[place] = generator.integers(256)
        if (directory, blocks) == (contents.directory, contents.blocks):
            continue
        try:
            same = decode_onnx(seal(replace(contents, directory=bytes(directory), blocks=bytes(blocks))))
        except ValueError as error:
            said.add(str(error))
        else:  # bytes that no coding reads
            assert same == FILES[name]
    assert all(message.startswith("truncated or damaged .fnz file: ") and message.isprintable() for message in said)
    assert len(said) > 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000


def sealed(directory: Directory, blocks: bytes, size: int) -> bytes:
    contents = unseal(encode_onnx(FILES["fields"]))
    return seal(replace(contents, directory=write_directory(directory), blocks=blocks, decoded_bytes=size))


def with_directory(directory: bytes) -> bytes:
    return seal(replace(unseal(encode_onnx(FILES["fields"])), directory=directory))


def lzma_of(symbols: bytes) -> bytes:
    packed = pack(symbols)
    return one_tensor(100, bytes([0, 3, 0, 255]) + varint(len(packed)) + packed)


def one_tensor(count: int, block: bytes, kind: int = 0) -> bytes:
    return sealed(Directory((len(block),), (Entry(0, count, count, kind, False, 0),), b""), block, count)


def entries(*given: Entry, lengths: tuple[int, ...] = (6,), size: int = 100, rest: bytes = b"") -> bytes:
    """Blocks of equal words of one byte."""
    return sealed(Directory(lengths, given, rest), (SEVENS * 10)[: sum(lengths)], size)


def in_contexts(rows: int, stride: int, *, lag: int = 1, tables: int = 1, high: int = 3) -> bytes:
    """100 words of one byte as a context stream whose head is wrong."""
    return one_tensor(100, bytes([4, 0, stride, rows, lag, 0, *bytes(8), 0, high, 0, 255, tables, *bytes(50)]))


SEVENS = bytes([1, 0, 7, 0, 0, 0])
MANY = 4_000_000
HARM = {
    "Huffman codes of no length": (one_tensor(100, bytes([0, 1, 0, 1, 0, 0, 0, 0])), "do not fit together"),
    "Huffman codes that are too short": (one_tensor(MANY, bytes([0, 1, 0, 1, 0, 1, 0, 1, 255])), "another length"),
    "Huffman codes that are too long": (one_tensor(40, bytes([0, 1, 0, 1, 0, 1, 0, 9, *bytes(9)])), "another length"),
    "Huffman codes that do not fit": (one_tensor(100, bytes([0, 1, 0, 2, 0, 1, 0, 9, *bytes(9)])), "do not fit"),
    "Huffman codes beyond 15 bits": (one_tensor(100, bytes([0, 1, 0, 1, 0, 16, 0, 9, *bytes(9)])), r"in 0\.\.15, got"),
    "a row of steep steps": (one_tensor(100, bytes([0, 2, 0, 255, 16, 0, *b"\xff" * 500])), "too large"),
    "a row below zero": (one_tensor(100, bytes([0, 2, 0, 1, 16, 0, 0b10000000, 0])), r"in 0\.\.224, got -1\.\.0"),
    "a step that there is not": (one_tensor(100, bytes([0, 2, 0, 1, 0x30, 8, 0, 0])), "step of a table"),
    "a long parameter": (one_tensor(100, bytes([0, 2, 0, 1, 0x1F, 8, 0, 0])), "parameter of a table"),
    "ANS that is longer": (one_tensor(100, bytes([0, 2, 0, 1, 16, 8, 0, 9, *b"\xff" * 36])), "longer than its symbols"),
    "ANS that ends with a zero": (one_tensor(100, bytes([0, 2, 0, 1, 16, 8, 0, 1, *bytes(4)])), "ends with a zero"),
    "bits that are not there": (one_tensor(MANY, bytes([0, 0, 0, 255])), "bytes too early"),
    "an unknown method": (one_tensor(100, bytes([0, 9, 0, 255])), "no coding has the number 9"),
    "an unknown coding": (one_tensor(100, bytes([9])), "no coding has the number 9"),
    "zeros left out twice": (one_tensor(100, bytes([2, 1, 0, 9, 9, 2])), "no coding has the number 2"),
    "a lowest symbol above the highest": (one_tensor(100, bytes([0, 0, 9, 3, *bytes(100)])), "at most the highest"),
    "LZMA that is none": (one_tensor(100, bytes([0, 3, 0, 255, 4, 1, 2, 3, 4])), "LZMA stream is broken"),
    "LZMA of fewer symbols": (lzma_of(bytes(99)), "must hold 100 bytes, got 99"),
    "LZMA of many more symbols": (lzma_of(bytes(10**6)), "must hold 100 bytes, got 101"),
    "an index without a value": (one_tensor(100, bytes([1, 0, 7, 0, 0, 1, *b"\xff" * 13])), r"in 0\.\.0, got 1"),
    "values that are not there": (one_tensor(100, bytes([1, 255, 1])), "bytes too early"),
    "gaps beyond the end": (one_tensor(100, bytes([2, 1, 0, 200, 200, *SEVENS])), "behind the 100 elements"),
    "more gaps than elements": (one_tensor(100, bytes([2, *varint(10**6), 0, 1, 1])), "at most 100, got 1000000"),
    "a matrix of no rows": (one_tensor(100, bytes([3, 0, *bytes(30)])), "no 0 equal rows"),
    "a matrix of uneven rows": (one_tensor(100, bytes([3, 7, *bytes(30)])), "no 7 equal rows"),
    "levels that there are not": (one_tensor(100, bytes([3, 10, 0, 16, 16, 0, 0, 0, *bytes(9)])), "level must be at most"),
    "chances that there are not": (one_tensor(100, bytes([3, 10, *bytes(6), 225, *bytes(9)])), "at most 224, got 225"),
    "contexts of no rows": (in_contexts(0, 1), "no matrix of 0 rows"),
    "contexts of uneven rows": (in_contexts(3, 1), "no matrix of 3 rows"),
    "contexts of short rows": (in_contexts(10, 1), "not coded with the stride 1"),
    "contexts of a stride that there is not": (in_contexts(2, 3), "not coded with the stride 3"),
    "contexts of no lag": (in_contexts(2, 1, lag=0), "has no lag 0"),
    "contexts of a lag that is too long": (in_contexts(2, 1, lag=51), "at most 50, got 51"),
    "contexts of many tables": (in_contexts(2, 1, tables=17), "is not coded by 17 tables"),
    "contexts of one symbol": (in_contexts(2, 1, high=0), r"symbols 0\.\.0 is not coded"),
    "contexts of words of two bytes": (one_tensor(100, bytes([4, 0, *bytes(50)]), kind=3), "words of 2 bytes have no contexts"),
    "contexts in contexts": (one_tensor(100, bytes([4, 4, *bytes(50)])), "no coding has the number 4"),
    "bytes that are left over": (one_tensor(100, SEVENS + b"7"), "1 bytes are left over"),
    "a block too long": (entries(Entry(0, 100, 100, 0, False, 0), lengths=(60,)), "54 bytes are left over"),
    "blocks that are not there": (
        sealed(Directory((9,), (Entry(0, 100, 100, 0, False, 0),), b""), SEVENS, 100), "at most 6, got 9"
    ),
    "blocks that nobody names": (
        sealed(Directory((6,), (Entry(0, 100, 100, 0, False, 0),), b""), SEVENS * 2, 100), "must have 12 bytes together"
    ),
    "a block of nothing": (
        entries(Entry(0, 50, 50, 0, False, 0), Entry(0, 50, 50, 0, False, 1), lengths=(0, 6)), "1 bytes too early"
    ),
    "a block of no tensor": (entries(Entry(0, 100, 100, 0, False, 1), lengths=(6, 6)), "must hold tensors"),
    "a block of two kinds": (
        entries(Entry(0, 50, 50, 0, False, 0), Entry(0, 50, 50, 1, False, 0)), "tensors, all of one kind"
    ),
    "a tensor in no block": (entries(Entry(0, 100, 100, 0, False, 1)), "at most 0, got 1"),
    "a tensor behind the end": (entries(Entry(9, 100, 100, 0, False, 0), rest=b"1", size=101), "lies behind the end"),
    "a tensor that is too short": (
        entries(Entry(0, 31, 31, 0, False, 0), rest=bytes(69)), "no tensor has the kind 0 and 31 bytes"
    ),
    "a kind that there is not": (entries(Entry(0, 100, 100, 12, False, 0)), "no tensor has the kind 12"),
    "half an element": (entries(Entry(0, 101, 25, 8, False, 0), size=101), "no whole number of elements"),
    "more bytes than are said": (entries(Entry(0, 100, 100, 0, False, 0), size=99), "at most 99, got 100"),
    "fewer bytes than are said": (entries(Entry(0, 100, 100, 0, False, 0), size=101), "must give 101 bytes, got 100"),
    "more varints than bytes": (entries(Entry(0, 100, 101, 0, True, 0)), "at most 100, got 101"),
    "fewer bytes of varints": (entries(Entry(0, 100, 99, 0, True, 0)), "must have 100 bytes, got 99"),
    "no directory": (with_directory(b""), "1 bytes too early"),
    "a number without an end": (with_directory(b"\xff" * 50), "a number must be at most"),
}  # fmt: skip


@pytest.mark.parametrize("name", HARM)
def test_harm_is_refused_in_one_line(name: str) -> None:
    data, said = HARM[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (decode_onnx, describe):
        with pytest.raises(ValueError, match=rf"truncated or damaged \.fnz file: .*{said}") as error:
            read(data)
        assert one_line(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000


def test_millions_of_symbols_out_of_nothing_take_little_memory() -> None:
    """An empty ANS stream is a whole one of any number of zeros."""
    data = one_tensor(MANY, bytes([0, 2, 0, 1, 16, 8, 0, 0]))
    assert len(data) == 66 + len(unseal(data).directory) + 8
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="another SHA-256 sum"):
        decode_onnx(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def with_sizes(decoded: int, directory: int) -> bytes:
    """A head that promises too much, with right checksums."""
    coded = encode_onnx(FILES["fields"])
    head = list(HEAD.unpack_from(coded))
    head[2], head[3] = decoded or head[2], directory or head[3]
    start = HEAD.pack(*head)
    return start + struct.pack("<I", zlib.crc32(start)) + coded[66:]


@pytest.mark.parametrize(("decoded", "directory"), [(2**31, 0), (0, 2**31), (2**32 - 1, 2**32 - 1)])
def test_sizes_beyond_the_bound_are_refused_before_memory_is_taken(decoded: int, directory: int) -> None:
    coded = with_sizes(decoded, directory)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=f"must decode to at most {largest_decoded(len(coded))}"):
        decode_onnx(coded)
    with pytest.raises(ValueError, match=r"truncated or damaged \.fnz file"):
        decode_onnx(with_sizes(decoded and 4_000_000, directory and 4_000_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_later_version_is_named() -> None:
    coded = bytearray(encode_onnx(FILES["fields"]))
    coded[4] = 2
    with pytest.raises(ValueError, match=r"version of a \.fnz file must be 1, got 2"):
        decode_onnx(bytes(coded))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no graph"),
        (b"PK\x03\x04" * 100, "malformed field"),
        (bytes(range(256)), "malformed field"),
        (file_of({"w": normal(20)})[:-3], "malformed field"),
        (file_of({"w": in_fields("a\nb", 1, normal(20))}).replace(b"a\nb", b"\xff\n\x80"), ""),
    ],
)
def test_what_is_no_onnx_file_is_refused_in_one_line(data: bytes, said: str) -> None:
    if not said:  # a name that is no text harms nothing
        assert decode_onnx(encode_onnx(data)) == data
        return
    with pytest.raises(ValueError, match=f"not an ONNX file.*{said}") as error:
        encode_onnx(data)
    assert one_line(error)


@pytest.mark.parametrize("sides", [(0, 5), (7, 1), (2**62, 2**62), (1,), (100, 10, 10)])
def test_tensors_whose_sides_are_wrong_come_back(sides: tuple[int, ...]) -> None:
    tensor = numpy_helper.from_array(sparse(normal(40, 25), 0.1), "w")
    del tensor.dims[:]
    tensor.dims.extend(sides)
    file = file_of({"w": tensor})
    assert decode_onnx(encode_onnx(file)) == file


@pytest.mark.parametrize("most", [20_000, slow(2_000_000)])
def test_millions_of_fields_are_refused(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tensor_spans.MOST_FIELDS == 2_000_000
    monkeypatch.setattr(tensor_spans, "MOST_FIELDS", most)
    tensor = numpy_helper.from_array(normal(20), "w").SerializeToString() + b"\x25\0\0\0\0" * most
    graph = b"\x2a" + varint(len(tensor)) + tensor
    with pytest.raises(ValueError, match=f"at most {most} fields"):
        encode_onnx(b"\x3a" + varint(len(graph)) + graph)


def test_weights_outside_the_file_are_refused_and_named() -> None:
    tensor = in_fields("w", 1, normal(20))
    tensor.data_location = 1
    with pytest.raises(ValueError, match="weights must be inside the file, those of 'w' are not"):
        encode_onnx(file_of({"w": tensor}))
