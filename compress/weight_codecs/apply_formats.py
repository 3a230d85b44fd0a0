"""Rewrites an ONNX file so that each weight has the format that an artifact states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, numpy_helper

from compress.weight_codecs.codecs import BINARY, FP16, LARGEST, Int4Codec
from compress.weight_codecs.onnx_storage import Codec, Stored, constant, node, replaced, weights_of, written
from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.onnx_io.rewrites.normal_form import at_opset
from hw_profiles.onnx_io.untrusted_file import load_model

_WHOLE_CHANNEL = 2**31  # longer than any


def store_formats(data: bytes, formats: Mapping[str, TensorFormat]) -> bytes:
    """A file with the weights in these formats (weight's name -> format); those of 32 and of 8 bits, and shared
    values, stay as they are.

    The weights must lie on the grids of their formats; then the file computes what it did. 4-bit weights of an integer
    operation are made 8-bit integers when the file is loaded, others float32.

    Raises:
        InputError: the file has no such weight, or a format that nothing stores.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> data = write_onnx(preset("resnet8").workload())
    >>> len(data) - len(store_formats(data, {"classifier.weight": TensorFormat(bits=16, floating=True)})) > 1000
    True
    """
    codecs = {name: codec for name, wanted in formats.items() if (codec := codec_of(wanted)) is not None}
    if not codecs:
        return data
    model = at_opset(load_model(data), max(codec.opset for codec in codecs.values()))
    floats = {weight.name.removesuffix(".turned"): weight for weight in weights_of(model.graph)}
    integers = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT8}
    found: dict[str, Stored] = {}
    for name, codec in codecs.items():
        held = f"{name}.quantized"
        if name in floats:
            found[floats[name].name] = codec.stored(floats[name])
        elif held in integers and isinstance(codec, Int4Codec):
            found[held] = _packed(integers[held])
        else:
            raise InputError(f"weight {name}: the file must hold it in float32 to store it in {formats[name]}")
    return written(replaced(model, found))


def codec_of(stored: TensorFormat) -> Codec | None:
    """What stores a weight in this format; None for those that need nothing.

    >>> codec_of(TensorFormat(bits=4, group=16))
    Int4Codec(group=16, opset=21)
    """
    if stored.codebook or stored.bits in (8, 32):
        return None
    if stored.floating and stored.bits == 16:
        return FP16
    if not stored.floating and stored.bits == 4:
        return Int4Codec(stored.group or _WHOLE_CHANNEL)
    if not stored.floating and stored.bits == 1:
        return BINARY
    raise InputError(f"weights must be stored in 32, 16 (floating), 8, 4 or 1 bits, got {stored}")


def _packed(tensor: Any) -> Stored:
    """8-bit integers -7..7 as 4-bit ones that are widened."""
    value = numpy_helper.to_array(tensor)
    if np.abs(value).max(initial=0) > LARGEST:
        raise InputError(f"weight {tensor.name}: integers must be within ±{LARGEST} to be stored in 4 bits")
    name = f"{tensor.name}.int4"
    return Stored(
        [constant(name, value.astype(ml_dtypes.int4))], [node("Cast", [name], tensor.name, to=TensorProto.INT8)]
    )
