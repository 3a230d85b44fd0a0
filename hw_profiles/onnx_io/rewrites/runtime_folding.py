"""Folds constants and batch normalization as ONNX Runtime does when it loads a file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from hw_profiles.errors import InputError, first_line
from hw_profiles.onnx_io.rewrites.normal_form import merge_equal_initializers


def folded(model: Any) -> Any:
    """The model with constants and batch normalization folded as ONNX Runtime does it when it loads a file, and with
    the shapes that follow.

    Raises:
        InputError: ONNX Runtime cannot load it.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, path = Path(folder) / "given.onnx", Path(folder) / "prepared.onnx"
        given.write_bytes(model.SerializeToString())  # a model in memory loses constants that shapes depend on
        try:
            quant_pre_process(given, path, skip_symbolic_shape=True)
        except Exception as error:
            raise InputError(f"ONNX Runtime cannot load the model ({first_line(error)})") from None
        prepared = onnx.load_model_from_string(path.read_bytes())
    merge_equal_initializers(prepared.graph)
    return prepared


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what ONNX Runtime's quantizer logs for those who run it by hand."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(level)
