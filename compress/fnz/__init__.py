"""The .fnz format: ONNX files without loss in fewer bytes. docs/fnz.md describes it."""

from __future__ import annotations

from compress.fnz.file_sizes import Coded, describe, sizes
from compress.fnz.onnx_coding import decode_onnx, encode_onnx

__all__ = ["Coded", "decode_onnx", "describe", "encode_onnx", "sizes"]
