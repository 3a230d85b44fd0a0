"""Prepares an ONNX file to be read with its weights: a later opset, constants and batch normalisation folded."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter

from hw_profiles.errors import InputError

_FOUR_BITS = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)


def at_opset(model: Any, opset: int) -> Any:
    """The model, converted where its opset is below ``opset``.

    Raises:
        InputError: ONNX cannot convert it.
    """
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if versions and min(versions) >= opset:
        return model
    said = list(model.graph.value_info)
    try:
        model = version_converter.convert_version(model, opset)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the file must be convertible to opset {opset}, and is not ({reason})") from None
    model.graph.ClearField("value_info")  # the converter's own, which takes bytes and says nothing new
    model.graph.value_info.extend(said)
    return model


def folded(model: Any) -> Any:
    """The model with constants and batch normalisation folded as ONNX Runtime does it when it loads a file, and with
    the shapes that follow.

    Raises:
        InputError: weights are stored in 4 bits, which ONNX Runtime does not fold, or ONNX Runtime cannot load it.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    few = [tensor.name for tensor in model.graph.initializer if tensor.data_type in _FOUR_BITS]
    if few:
        raise InputError(f"a float32 network is needed, got one whose weights are stored in 4 bits, such as {few[0]}")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, path = Path(folder) / "given.onnx", Path(folder) / "prepared.onnx"
        given.write_bytes(model.SerializeToString())  # a model in memory loses constants that shapes depend on
        try:
            quant_pre_process(given, path, skip_symbolic_shape=True)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise InputError(f"ONNX Runtime must be able to load the network, and is not ({reason})") from None
        return onnx.load_model_from_string(path.read_bytes())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what ONNX Runtime's quantizer logs for those who run it by hand."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(level)
