"""Codes the bytes of an ONNX file as .fnz and decodes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from compress.fnz.codes.byte_reader import Reader, damaged
from compress.fnz.codes.element_kinds import KINDS, Words
from compress.fnz.container import Contents, check_decoded, seal, unseal
from compress.fnz.directory import Directory, Entry, read_directory, write_directory
from compress.fnz.shared_blocks import Block, Tensor, encode_tensors
from compress.fnz.tensor_blocks import decode_block
from compress.fnz.tensor_spans import Span, find_spans
from compress.fnz.varint_fields import varints_of_words, words_of_varints
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.untrusted_file import LARGEST_FILE


def encode_onnx(data: bytes) -> bytes:
    """An ONNX file without loss in fewer bytes: the elements of its tensors are cut out and coded (Deep Compression,
    Han et al., arXiv 1510.00149), the rest is packed.

    Raises:
        InputError: not an ONNX file, larger than 2 GiB, or weights that lie outside it.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> file = write_onnx(preset("resnet8").workload())
    >>> coded = encode_onnx(file)
    >>> decode_onnx(coded) == file, len(coded) < 0.9 * len(file)
    (True, True)
    """
    if len(data) > LARGEST_FILE:
        raise InputError(f"an ONNX file must have at most {LARGEST_FILE} bytes, got {len(data)}")
    read = [(span, words) for span in find_spans(data) if (words := _words(data, span)) is not None]
    spans = [span for span, _ in read]
    blocks = encode_tensors([Tensor(words, span.kind, _rows(span, words)) for span, words in read])
    directory = _directory(data, spans, [len(words) for _, words in read], blocks)
    digest = hashlib.sha256(data).digest()
    return seal(Contents(len(data), digest, write_directory(directory), b"".join(block.data for block in blocks)))


def decode_onnx(data: bytes) -> bytes:
    """The ONNX file, byte by byte.

    Raises:
        InputError: not a .fnz file, or one that is cut off, altered, or made to do harm.
    """
    contents = unseal(data)
    directory = read_directory(contents.directory, contents.decoded_bytes, len(contents.blocks))
    blocks = [words for words, _ in decode_blocks(directory, contents.blocks)]
    return check_decoded(_assembled(directory, blocks), contents.digest)


def decode_blocks(directory: Directory, data: bytes) -> list[tuple[Words, str]]:
    """The words of each block, and the names of its codings."""
    kinds = {entry.block: KINDS[entry.kind] for entry in directory.entries}
    blocks, at = [], 0
    for number, (length, count) in enumerate(zip(directory.lengths, directory.counts(), strict=True)):
        reader = Reader(data[at : at + length])
        words = decode_block(reader, count, kinds[number])
        reader.finish()
        blocks.append((words, ", ".join(dict.fromkeys(reader.labels))))
        at += length
    return blocks


def _words(data: bytes, span: Span) -> Words | None:
    elements = data[span.start : span.end]
    return words_of_varints(elements, KINDS[span.kind]) if span.varints else KINDS[span.kind].words(elements)


def _rows(span: Span, words: Words) -> int:
    """Files may say what they like of a tensor's sides."""
    return span.rows if 0 < span.rows <= len(words) and len(words) % span.rows == 0 else 1


def _directory(data: bytes, spans: Sequence[Span], counts: Sequence[int], blocks: Sequence[Block]) -> Directory:
    block_of = {member: number for number, block in enumerate(blocks) for member in block.members}
    entries, skeleton, at = [], [], 0
    for i, (span, count) in enumerate(zip(spans, counts, strict=True)):
        skeleton.append(data[at : span.start])
        size = span.end - span.start
        entries.append(Entry(span.start - at, size, count, span.kind, span.varints, block_of[i]))
        at = span.end
    skeleton.append(data[at:])
    return Directory(tuple(len(block.data) for block in blocks), tuple(entries), b"".join(skeleton))


def _assembled(directory: Directory, blocks: Sequence[Words]) -> bytes:
    pieces, at = list[bytes](), 0
    used = np.zeros(len(blocks), np.int64)
    for entry in directory.entries:
        words = blocks[entry.block][used[entry.block] :][: entry.count]
        used[entry.block] += entry.count
        elements = varints_of_words(words, KINDS[entry.kind]) if entry.varints else KINDS[entry.kind].bytes(words)
        if len(elements) != entry.size:
            raise damaged(f"a tensor must have {entry.size} bytes, got {len(elements)}")
        pieces += [directory.skeleton[at : at + entry.gap], elements]
        at += entry.gap
    return b"".join((*pieces, directory.skeleton[at:]))
