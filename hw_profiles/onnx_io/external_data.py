"""Weights that an ONNX file keeps in other files beside it (external data)."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnx import TensorProto

from hw_profiles.errors import InputError

_PACKED_BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}
_BYTES = {
    "DOUBLE": 8, "INT64": 8, "UINT64": 8, "COMPLEX64": 8, "COMPLEX128": 16, "FLOAT": 4, "INT32": 4, "UINT32": 4,
    "FLOAT16": 2, "BFLOAT16": 2, "INT16": 2, "UINT16": 2,
}  # fmt: skip


def all_tensors(model: Any) -> Iterator[Any]:
    """The tensors that a model holds, those in nodes, subgraphs and functions too."""
    yield from _tensors_in(model.graph.node)
    yield from _held(model.graph)
    for function in model.functions:
        yield from _tensors_in(function.node)


def external_tensors(model: Any) -> list[Any]:
    """The tensors of a model whose numbers lie outside of it."""
    return [each for each in all_tensors(model) if each.data_location == TensorProto.EXTERNAL or each.external_data]


def _tensors_in(nodes: Any) -> Iterator[Any]:
    """The tensors in the attributes of nodes, and all tensors of the graphs that they hold."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _held(inner)
                yield from _tensors_in(inner.node)


def embed(model: Any, path: Path, most_bytes: int) -> None:
    """Read what lies outside into the model, which was read from ``path``.

    A place is the name of a regular file in the same folder: no link, no other folder. What a tensor says of its place
    must fit that file and its own shape. Several tensors may lie at the same place.

    Raises:
        InputError: another place, a file that cannot be read, or more than ``most_bytes`` in all; what and where is
            named.
    """
    files: dict[str, tuple[int, int]] = {}
    total = 0
    try:
        for tensor in external_tensors(model):
            place = {entry.key: entry.value for entry in tensor.external_data}
            location = place.get("location", "")
            if location not in files:
                files[location] = _opened(path, tensor.name, location)
            handle, size = files[location]
            offset, length = (_number(path, tensor.name, key, place) for key in ("offset", "length"))
            start, count = offset or 0, size - (offset or 0) if length is None else length
            needed = _tensor_bytes(path, tensor)
            if start + count > size or count != needed:
                raise InputError(
                    f"{path}: tensor {tensor.name!r:.80} must have {needed} bytes at {start} of the {size} bytes of "
                    f"{location!r}, got {max(min(count, size - start), 0)}"
                )
            total += count
            if total > most_bytes:
                raise InputError(f"{path}: a file and what lies outside it must have at most {most_bytes} bytes")
            tensor.raw_data = os.pread(handle, count, start)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            if len(tensor.raw_data) != count:
                raise InputError(f"{path}: {location!r} was changed while it was read")
    finally:
        for handle, _ in files.values():
            os.close(handle)


def _held(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _opened(path: Path, name: str, location: str) -> tuple[int, int]:
    """A handle of the file and its size."""
    whole = f"{path}: the weights of {name!r:.80}"
    if not location or location in (".", "..") or any(c in location for c in "/\\\0"):
        raise InputError(f"{whole} must be in a file of the same folder, got {location!r:.80}")
    try:
        # O_NONBLOCK: opening a pipe must not wait for who writes into it
        handle = os.open(path.parent / location, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"{whole} are in {location!r:.80}, which cannot be read ({error.strerror})") from None
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        raise InputError(f"{whole} must be in a regular file, {location!r:.80} is not one")
    return handle, about.st_size


def _number(path: Path, name: str, key: str, place: dict[str, str]) -> int | None:
    text = place.get(key)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InputError(f"{path}: tensor {name!r:.80}: {key} must be a number of bytes, got {text!r:.40}")
    return int(text)


def _tensor_bytes(path: Path, tensor: Any) -> int:
    known = TensorProto.DataType.values()
    if tensor.data_type not in known or tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        raise InputError(f"{path}: tensor {tensor.name!r:.80}: must hold numbers, got type {tensor.data_type}")
    if min(tensor.dims, default=0) < 0:
        raise InputError(f"{path}: tensor {tensor.name!r:.80}: every side must be at least 0")
    kind, count = TensorProto.DataType.Name(tensor.data_type), math.prod(int(side) for side in tensor.dims)
    return -(-count * _PACKED_BITS[kind] // 8) if kind in _PACKED_BITS else count * _BYTES.get(kind, 1)
