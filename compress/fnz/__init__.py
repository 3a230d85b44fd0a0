"""The .fnz format: ONNX files without loss in fewer bytes. docs/fnz.md describes it."""

from __future__ import annotations

from compress.fnz.coding import decode_onnx, encode_onnx
from compress.fnz.sizes import Coded, describe, sizes

__all__ = ["Coded", "decode_onnx", "describe", "encode_onnx", "sizes"]
