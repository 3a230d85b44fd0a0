"""The layout of a .fnz file: head, directory, blocks (see docs/fnz.md)."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import astuple, dataclass

from compress.fnz.codes.byte_reader import damaged
from compress.fnz.codes.symbols import pack, unpack
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.untrusted_file import LARGEST_FILE

MAGIC = b"\x8bFNZ"
VERSION = 1
FREE_BYTES = 4 * 1024**2
EXPANSION = 256

_HEAD = struct.Struct("<4sBIIIIIBI32s")
_SUM = struct.Struct("<I")
_STORED, _DEFLATED, _LZMA = range(3)
_LONG = 4 * 1024**2  # bytes for which LZMA would take seconds


@dataclass(frozen=True, slots=True)
class Contents:
    """``directory`` and ``blocks`` of a file that decodes to ``decoded_bytes`` with the SHA-256 sum ``digest``."""

    decoded_bytes: int
    digest: bytes
    directory: bytes
    blocks: bytes


@dataclass(frozen=True, slots=True)
class _Head:
    magic: bytes
    version: int
    decoded_bytes: int
    directory_bytes: int
    packed_bytes: int
    blocks_bytes: int
    padding: int
    method: int
    checksum: int
    digest: bytes


def largest_decoded(size: int) -> int:
    """What a file of so many bytes may decode to: 4 MiB, and 256 bytes for each of its own; 2 GiB at most.

    >>> largest_decoded(0)
    4194304
    """
    return min(FREE_BYTES + EXPANSION * size, LARGEST_FILE)


def seal(contents: Contents) -> bytes:
    """The file, filled up with zeros where it would decode to more than :func:`largest_decoded`."""
    method, packed = _packed(contents.directory)
    body = packed + contents.blocks
    needed = -(-(max(contents.decoded_bytes, len(contents.directory)) - FREE_BYTES) // EXPANSION)
    padding = max(needed - len(body), 0)
    head = _Head(
        MAGIC, VERSION, contents.decoded_bytes, len(contents.directory), len(packed), len(contents.blocks), padding,
        method, zlib.crc32(body), contents.digest,
    )  # fmt: skip
    start = _HEAD.pack(*astuple(head))
    return start + _SUM.pack(zlib.crc32(start)) + body + bytes(padding)


def unseal(data: bytes) -> Contents:
    """The inverse of :func:`seal`; no size is believed before it is checked.

    Raises:
        InputError: another kind of file, a later version, or one that is cut off, altered, or too large.
    """
    head = _head(data)
    body = data[_HEAD.size + _SUM.size :]
    used = head.packed_bytes + head.blocks_bytes
    if used + head.padding != len(body):
        raise damaged(f"it must have {used + head.padding} bytes after its head, got {len(body)}")
    most = largest_decoded(len(data))
    if max(head.decoded_bytes, head.directory_bytes) > most:
        raise damaged(f"a file of {len(data)} bytes must decode to at most {most}, got {head.decoded_bytes}")
    if zlib.crc32(body[:used]) != head.checksum or body.count(0, used) != head.padding:
        raise damaged("its checksum is another")
    directory = _unpacked(head.method, body[: head.packed_bytes], head.directory_bytes)
    return Contents(head.decoded_bytes, head.digest, directory, body[head.packed_bytes : used])


def check_decoded(data: bytes, digest: bytes) -> bytes:
    """The decoded bytes, if they have the sum."""
    if hashlib.sha256(data).digest() != digest:
        raise damaged("what it decodes to has another SHA-256 sum")
    return data


def _head(data: bytes) -> _Head:
    if not data.startswith(MAGIC):
        raise InputError(f"not a .fnz file (it must begin with {MAGIC.hex()}, got {data[:4].hex() or 'nothing'})")
    if len(data) < _HEAD.size + _SUM.size:
        raise damaged(f"its head must have {_HEAD.size + _SUM.size} bytes, got {len(data)}")
    head = _Head(*_HEAD.unpack_from(data))
    if head.version != VERSION:
        raise InputError(f"the version of a .fnz file must be {VERSION}, got {head.version}")
    if _SUM.unpack_from(data, _HEAD.size)[0] != zlib.crc32(data[: _HEAD.size]):
        raise damaged("header checksum mismatch")
    return head


def _packed(directory: bytes) -> tuple[int, bytes]:
    ways = [(_STORED, directory), (_DEFLATED, zlib.compress(directory, 9 if len(directory) < _LONG else 6))]
    if len(directory) < _LONG:
        ways.append((_LZMA, pack(directory)))
    return min(ways, key=lambda way: len(way[1]))


def _unpacked(method: int, packed: bytes, size: int) -> bytes:
    if method == _LZMA:
        return unpack(packed, size)
    if method == _DEFLATED:
        packed = _inflated(packed, size)
    elif method != _STORED:
        raise damaged(f"its directory has the method {method}, which is unknown")
    if len(packed) != size:
        raise damaged(f"its directory must have {size} bytes, got {len(packed)}")
    return packed


def _inflated(packed: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, size + 1)
    except zlib.error as error:
        raise damaged(f"its directory is broken ({error})") from None
