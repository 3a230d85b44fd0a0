"""Coded sizes of a file, beside gzip and xz, and tensor by tensor."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from compress.fnz.container import unseal
from compress.fnz.directory import Directory, read_directory
from compress.fnz.onnx_coding import decode_blocks, decode_onnx, encode_onnx
from compress.fnz.tensor_spans import find_spans

REST = "(graph, names and small tensors)"


@dataclass(frozen=True, slots=True)
class Coded:
    """One tensor: its ``elements``, the ``coding`` that was smallest, and the ``bytes`` that it takes."""

    name: str
    elements: int
    coding: str
    bytes: int


def sizes(data: bytes) -> dict[str, int]:
    """Bytes of an ONNX file, under ``gzip -9`` and ``xz -9``, and as .fnz. xz takes about a second for 2 MB.

    Raises:
        InputError: as :func:`compress.fnz.encode_onnx`.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> found = sizes(write_onnx(preset("resnet8").workload()))
    >>> sorted(found, key=found.get)
    ['fnz', 'xz', 'gzip', 'onnx']
    """
    return {
        "onnx": len(data),
        "gzip": len(gzip.compress(data, 9, mtime=0)),
        "xz": len(lzma.compress(data, preset=9)),
        "fnz": len(encode_onnx(data)),
    }


def describe(data: bytes) -> list[Coded]:
    """The tensors of a .fnz file in their order, and what all else takes; the bytes add up to those of the file.
    Tensors that were coded together share the bytes in proportion to their elements.

    Raises:
        InputError: as :func:`compress.fnz.decode_onnx`.
    """
    contents = unseal(data)
    directory = read_directory(contents.directory, contents.decoded_bytes, len(contents.blocks))
    labels = [label for _, label in decode_blocks(directory, contents.blocks)]
    names = {span.start: span.name for span in find_spans(decode_onnx(data))}
    starts = accumulate((e.gap + e.size for e in directory.entries), initial=0)
    rows = [
        Coded(names.get(start + entry.gap, ""), entry.count, labels[entry.block], size)
        for start, entry, size in zip(starts, directory.entries, _shares(directory), strict=False)
    ]
    return [*rows, Coded(REST, 0, "packed", len(data) - len(contents.blocks))]


def _shares(directory: Directory) -> Sequence[int]:
    counts, used, shares = directory.counts(), [0] * len(directory.lengths), []
    for entry in directory.entries:
        length, count, before = directory.lengths[entry.block], counts[entry.block], used[entry.block]
        used[entry.block] = before + entry.count
        shares.append(length * (before + entry.count) // count - length * before // count)
    return shares
