"""The directory of a .fnz file: where each tensor belongs, and which block holds it."""

from __future__ import annotations

from dataclasses import dataclass

from compress.fnz.codes.byte_reader import Reader, damaged, varint
from compress.fnz.codes.element_kinds import KINDS
from compress.fnz.tensor_spans import MOST_SPANS, SHORTEST

_VARINTS = 0x80


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of ``count`` words and ``size`` bytes, ``gap`` bytes of the skeleton after the one before it. ``kind``:
    a place in ``KINDS``; ``varints``: see :class:`compress.fnz.tensor_spans.Span`; ``block``: the number of its block.
    """

    gap: int
    size: int
    count: int
    kind: int
    varints: bool
    block: int


@dataclass(frozen=True, slots=True)
class Directory:
    """``lengths``: bytes of the blocks, which follow each other. ``skeleton``: the ONNX file without these tensors."""

    lengths: tuple[int, ...]
    entries: tuple[Entry, ...]
    skeleton: bytes

    def counts(self) -> list[int]:
        """The words in each block."""
        counts = [0] * len(self.lengths)
        for entry in self.entries:
            counts[entry.block] += entry.count
        return counts


def write_directory(directory: Directory) -> bytes:
    """What :func:`read_directory` reads."""
    lengths, entries = directory.lengths, directory.entries
    out = [varint(len(lengths)), *map(varint, lengths), varint(len(entries))]
    for entry in entries:
        out += [varint(entry.gap), varint(entry.size), bytes([entry.kind | entry.varints * _VARINTS])]
        out += [varint(entry.count)] if entry.varints else []
        out.append(varint(entry.block))
    return b"".join((*out, directory.skeleton))


def read_directory(data: bytes, decoded_bytes: int, blocks_bytes: int) -> Directory:
    """The directory of a file that is to have ``decoded_bytes``, from ``blocks_bytes`` of blocks."""
    reader = Reader(data)
    lengths = tuple(reader.varint(blocks_bytes) for _ in range(reader.varint(min(MOST_SPANS, blocks_bytes))))
    count = reader.varint(min(MOST_SPANS, decoded_bytes // SHORTEST))
    entries = tuple(_entry(reader, decoded_bytes, len(lengths)) for _ in range(count))
    directory = Directory(lengths, entries, data[reader.at :])
    _check(directory, decoded_bytes, blocks_bytes)
    return directory


def _entry(reader: Reader, most: int, blocks: int) -> Entry:
    gap, size, kind = reader.varint(most), reader.varint(most), reader.byte()
    place, varints = kind & ~_VARINTS, bool(kind & _VARINTS)
    if place >= len(KINDS) or size < SHORTEST:
        raise damaged(f"no tensor has the kind {place} and {size} bytes")
    count = reader.varint(size) if varints else KINDS[place].count(size)
    if not varints and size % KINDS[place].width:
        raise damaged(f"{size} bytes are no whole number of elements")
    return Entry(gap, size, count, place, varints, reader.varint(blocks - 1))


def _check(directory: Directory, decoded_bytes: int, blocks_bytes: int) -> None:
    """All that follows relies on these sums."""
    if sum(directory.lengths) != blocks_bytes:
        raise damaged(f"its blocks must have {blocks_bytes} bytes together, got {sum(directory.lengths)}")
    tensors = sum(entry.size for entry in directory.entries)
    if tensors + len(directory.skeleton) != decoded_bytes:
        raise damaged(f"it must give {decoded_bytes} bytes, got {tensors + len(directory.skeleton)}")
    if sum(entry.gap for entry in directory.entries) > len(directory.skeleton):
        raise damaged("a tensor lies behind the end")
    kinds = {entry.block: entry.kind for entry in directory.entries}
    if len(kinds) != len(directory.lengths) or any(kinds[entry.block] != entry.kind for entry in directory.entries):
        raise damaged("a block must hold tensors, all of one kind")
