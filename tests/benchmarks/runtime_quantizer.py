"""ONNX Runtime's own post-training quantizer, as its documentation recommends it for a CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hw_profiles.onnx_io.rewrites.normal_form import normal_form

_LEAST_OPSET = 13  # the first in which each channel of a weight may have a scale of its own


def quantized_by_runtime(file: bytes, calls: Sequence[Mapping[str, np.ndarray[Any, Any]]]) -> bytes:
    """A float file in QDQ form: extremes of what ``calls`` read, a scale for each output channel, unsigned activations,
    after its own preparation of the file. What follows from shapes is a constant before: it would make integers of
    sizes that are worked out in float, such as those of TensorFlow's padding."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class OneByOne(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter([dict(call) for call in calls])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # it may leave files where it runs
        given, ready, done = (Path(folder) / name for name in ("given.onnx", "ready.onnx", "int8.onnx"))
        given.write_bytes(normal_form(onnx.load_model_from_string(file), opset=_LEAST_OPSET).SerializeToString())
        try:
            quant_pre_process(given, ready)
        except Exception:  # its symbolic shape inference stops at some networks; the preparation is optional
            ready = given
        quantize_static(
            ready, done, OneByOne(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return done.read_bytes()
