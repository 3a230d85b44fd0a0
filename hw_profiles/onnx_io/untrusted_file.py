"""Loads untrusted ONNX files: sizes and fields are checked before anything is parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from hw_profiles.errors import InputError
from hw_profiles.onnx_io.external_data import embed, external_tensors
from hw_profiles.onnx_io.protobuf_fields import BYTES, BrokenFieldsError, Fields

LARGEST_FILE = 2 * 1024**3
MOST_NODES = 50_000
MOST_FIELDS = 1_500_000
DEEPEST_MESSAGE = 48

_NAMES_SHOWN = 80


def load_model(source: Path | str | bytes) -> Any:
    """The ModelProto of a file or its bytes, with all weights inside it: those that a file keeps in others in the same
    folder are read from there (:func:`hw_profiles.onnx_io.external_data.embed`).

    Protocol buffers make large objects of very few bytes, so the fields are counted before they are parsed.

    Raises:
        InputError: not an ONNX model, too large, nested too deeply, or weights outside of the bytes or of the folder.

    >>> load_model(b"not a model")
    Traceback (most recent call last):
    ...
    hw_profiles.errors.InputError: the given bytes: not an ONNX file (malformed field at byte 1)
    """
    source = Path(source) if isinstance(source, str) else source
    name = "the given bytes" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else read_file(source)
    try:
        _check_fields(data)
        model = onnx.load_model_from_string(data)
    except BrokenFieldsError as error:
        raise InputError(f"{name}: not an ONNX file ({error})") from None
    except Exception as error:
        raise InputError(f"{name}: not an ONNX file ({type(error).__name__})") from None
    graph = model.graph
    if not graph.input or not graph.output:
        raise InputError(f"{name}: not an ONNX model with an input and an output")
    if len(graph.node) > MOST_NODES:
        raise InputError(f"{name}: a model must have at most {MOST_NODES} nodes, got {len(graph.node)}")
    if isinstance(source, Path):
        embed(model, source, LARGEST_FILE)
    _refuse_outside(name, model)
    return model


def self_contained(path: Path) -> bytes:
    """The bytes of the file itself, or of one with all weights inside where it keeps some in other files.

    Raises:
        InputError: as :func:`load_model`.
    """
    data = read_file(path)
    try:
        outside = bool(external_tensors(onnx.load_model_from_string(data))) if _valid(data) else False
    except Exception as error:
        raise InputError(f"{path}: not an ONNX file ({type(error).__name__})") from None
    if not outside:
        return data
    try:
        whole: bytes = load_model(path).SerializeToString(deterministic=True)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: with its weights it must have at most {LARGEST_FILE} bytes") from None
    return whole


def _valid(data: bytes) -> bool:
    """Whether the fields are sound and few enough; what is not is refused by whoever reads the bytes."""
    try:
        _check_fields(data)
    except BrokenFieldsError:
        return False
    return True


def read_metadata(source: Path | str | bytes) -> dict[str, str]:
    """The strings that travel with the file.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> read_metadata(write_onnx(preset("resnet8").workload(), metadata={"classes": "cat,dog"}))
    {'classes': 'cat,dog'}
    """
    return {p.key: p.value for p in load_model(source).metadata_props}


def shown(name: str) -> str:
    """A name from a file as it may appear in a message: quoted, short, one line.

    >>> print(shown("a\\nb"))
    'a\\nb'
    """
    return repr(name if len(name) <= _NAMES_SHOWN else f"{name[:_NAMES_SHOWN]}…")


def read_file(path: Path) -> bytes:
    """The bytes of a file from anywhere; an InputError where it cannot be read or is too large."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path}: a file must have at most {LARGEST_FILE} bytes, got {path.stat().st_size}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _refuse_outside(name: str, model: Any) -> None:
    outside = [tensor.name for tensor in external_tensors(model)]
    if outside:
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        raise InputError(f"{name}: weights must be inside the file, {shown(outside[0])}{more} are not")


def _check_fields(data: bytes) -> None:
    """Walks the fields of the model, without making anything of them."""
    waiting = [(0, len(data), onnx.ModelProto.DESCRIPTOR, 0)]
    inner_types: dict[str, dict[int, Any]] = {}
    fields = Fields(data, MOST_FIELDS)
    while waiting:
        at, end, message, depth = waiting.pop()
        if depth > DEEPEST_MESSAGE:
            raise BrokenFieldsError(f"messages must be nested at most {DEEPEST_MESSAGE} deep")
        if message.full_name not in inner_types:
            numbered = message.fields_by_number.items()
            inner_types[message.full_name] = {n: f.message_type for n, f in numbered if f.message_type is not None}
        inner = inner_types[message.full_name]
        for number, wire, start, after in fields.of(at, end):
            if wire == BYTES and number in inner:
                waiting.append((start, after, inner[number], depth + 1))
