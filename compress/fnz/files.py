"""Converts ONNX files on disk to .fnz and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compress.atomic_files import write_bytes
from compress.fnz import decode_onnx, encode_onnx
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.untrusted_file import read_file, self_contained


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """Bytes of an ONNX file and of the .fnz file that was made of it.

    >>> Encoded(onnx_bytes=1000, fnz_bytes=250).ratio
    4.0
    """

    onnx_bytes: int
    fnz_bytes: int

    @property
    def ratio(self) -> float:
        """How many times as large the ONNX file is."""
        return self.onnx_bytes / self.fnz_bytes


def encode_file(model: Path | str | bytes, out: Path | str) -> Encoded:
    """Write an ONNX file, given as a path or as its bytes, to ``out`` as .fnz. It is decoded and compared before it
    takes the place of an earlier file. Of a file that keeps weights in others beside it, one file that holds them is
    coded. :func:`compress.fnz.sizes` has the sizes under gzip and xz, too.

    Raises:
        InputError: the file cannot be read, is no ONNX file, is larger than 2 GiB, or keeps weights outside of
            its folder.
    """
    name, data = ("the given bytes", model) if isinstance(model, bytes) else (str(model), self_contained(Path(model)))
    try:
        coded = encode_onnx(data)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
    if decode_onnx(coded) != data:
        raise AssertionError(f"{name}: the coded file decodes to other bytes")
    write_bytes(Path(out), coded)
    return Encoded(onnx_bytes=len(data), fnz_bytes=len(coded))


def decode_file(path: Path | str, out: Path | str) -> None:
    """Write the ONNX file that was coded, byte by byte, to ``out``; an earlier file there is replaced at once.

    Raises:
        InputError: the file cannot be read, is no .fnz file, or is cut off or altered.
    """
    try:
        data = decode_onnx(read_file(Path(path)))
    except ValueError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    write_bytes(Path(out), data)
