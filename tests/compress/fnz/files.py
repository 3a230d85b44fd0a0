"""ONNX files of every kind that is coded, small ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from search_spaces import preset

Array = NDArray[Any]


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def clustered(weights: Array, values: int) -> NDArray[np.float32]:
    """Each weight replaced by the nearest of so many quantiles."""
    book = np.quantile(weights, (np.arange(values) + 0.5) / values).astype(np.float32)
    return book[np.searchsorted((book[1:] + book[:-1]) / 2, weights)]


def sparse(weights: Array, density: float, seed: int = 1) -> Array:
    """Zeros but for a share of the weights, as often in each row and column."""
    return np.where(np.random.default_rng(seed).random(weights.shape) < density, weights, 0).astype(weights.dtype)


def uneven_chances(rows: int, columns: int, density: float) -> NDArray[np.float64]:
    """More in some rows and columns, and none in a quarter of the columns."""
    across = np.where(np.arange(columns) % 4, np.linspace(0.1, 2.5, columns), 0)
    return density * np.linspace(0.2, 1.8, rows)[:, None] * across


def uneven(weights: Array, density: float) -> Array:
    """Zeros but for elements with these chances."""
    chances = uneven_chances(*weights.shape, density)
    return np.where(np.random.default_rng(2).random(weights.shape) < chances, weights, 0).astype(weights.dtype)


def runs(weights: Array) -> Array:
    """Whole rows and, in others, every third element."""
    kept = (np.arange(weights.size).reshape(weights.shape) % 3 == 0) & (np.arange(len(weights)) % 5 == 0)[:, None]
    return np.where(kept, weights, 0).astype(weights.dtype)


def file_of(tensors: Mapping[str, Any], nodes: tuple[Any, ...] = ()) -> bytes:
    """Tensors are arrays or TensorProtos."""
    made = [v if isinstance(v, TensorProto) else numpy_helper.from_array(v, k) for k, v in tensors.items()]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([*nodes, helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y], made)
    data: bytes = helper.make_model(graph).SerializeToString(deterministic=True)
    return data


def in_fields(name: str, kind: int, values: Array) -> Any:
    """A tensor outside ``raw_data``: in ``float_data``, ``int32_data`` or what else its type demands."""
    return helper.make_tensor(name, kind, values.shape, values.reshape(-1), raw=False)


def network(name: str, precision: str = "fp32", clusters: int = 0) -> bytes:
    workload = preset(name).workload()
    weights = random_weights(workload)
    if clusters:
        weights = {k: clustered(w, clusters) if w.ndim > 1 else w for k, w in weights.items()}
    return write_onnx(workload, weights, quantization=fixed_quantization(workload) if precision == "int8" else None)


def alike(rows: int, columns: int) -> NDArray[np.float32]:
    """Weights whose size depends on the column and, every ninth place, is larger."""
    places = np.arange(columns)
    size = np.exp(2 * np.sin(places / 9)) * (1 + 3 * (places % 9 == 4)) / 4
    return normal(rows, columns, seed=3) * size.astype(np.float32)


W = normal(60, 80)
ALIKE = alike(60, 280)
INT8 = np.clip(np.rint(W * 40), -127, 127).astype(np.int8)

# The coding that each is to get, or several of which one may win.
CODINGS: dict[str, tuple[Array, str]] = {
    "float32": (W, "planes, ANS, 8 bits"),
    "float16": (W.astype(np.float16), "planes, ANS, 8 bits"),
    "bfloat16": (W.astype(ml_dtypes.bfloat16), "planes, ANS, 8 bits"),
    "float64": (W.astype(np.float64) ** 3, "planes, ANS, 8 bits"),
    "float64 from float32": (W.astype(np.float64), "planes, ANS, 8 bits"),
    "int8": (INT8, "planes, ANS"),
    "uint8": ((INT8.astype(np.int16) + 128).astype(np.uint8), "planes, ANS"),
    "int16": (np.rint(W * 5000).astype(np.int16), "planes, ANS, 8 bits"),
    "int32": (np.rint(W * 5000).astype(np.int32), "planes, ANS, 8 bits"),
    "uint32": (np.random.default_rng(0).integers(0, 1 << 20, (60, 80), dtype=np.uint32), "planes, 4 bits, 8 bits"),
    "int64": (np.rint(W * 5000).astype(np.int64), "planes, ANS, 8 bits"),
    "int4": (np.clip(np.rint(W * 2), -7, 7).astype(ml_dtypes.int4), "planes, ANS"),
    "uint4": (np.clip(np.rint(W * 2) + 8, 0, 15).astype(ml_dtypes.uint4), "planes, ANS"),
    "bool": (W > 1, "codebook of 2, ANS|planes, ANS"),
    "2 values": (np.sign(W) * np.float32(0.1), "codebook of 2, 1 bits|codebook of 2, ANS"),
    "16 values": (clustered(W, 16), "codebook of 16, 4 bits|codebook of 16, ANS"),
    "16 unequal values": (clustered(W, 16)[:, ::-1] ** 3, "codebook of 16, 4 bits|codebook of 16, ANS"),
    "8 values of chances 1/2, 1/4, ...": (np.log2(np.random.default_rng(0).random(4800) + 2**-8).astype(np.int8) / np.float32(3), "codebook of 9, Huffman|codebook of 8, Huffman"),
    "256 values": (np.arange(4800, dtype=np.float32).reshape(60, 80) * 7 % 256, "codebook of 256, LZMA"),
    "257 values": (normal(257)[np.random.default_rng(0).integers(0, 257, 4800)], "planes, ANS"),
    "int8 of 16 values": (np.rint(clustered(W, 16) * 40).astype(np.int8), "codebook of 16, 4 bits|codebook of 16, ANS"),
    "zeros": (np.zeros((60, 80), np.float32), "codebook of 1"),
    "sparse": (sparse(W, 0.1), "grid, planes"),
    "sparse int8": (sparse(INT8, 0.1), "grid|gaps|planes|codebook"),
    "sparse and 15 values": (sparse(clustered(W, 15), 0.1), "codebook of 16, ANS|grid, ANS, codebook of 15, 4 bits"),
    "sparse and 256 values": (sparse(clustered(normal(600, 80), 256), 0.1), "grid|gaps"),
    "unevenly sparse": (uneven(W, 0.05), "grid"),
    "sparse in runs": (runs(clustered(W, 15)), "gaps"),
    "int8 alike": (np.clip(np.rint(ALIKE * 9), -127, 127).astype(np.int8), "planes, contexts"),
    "int8 alike in rows": (np.clip(np.rint(alike(40, 150).T * 9), -127, 127).astype(np.int8), "planes, contexts"),
    "uint8 alike": (np.clip(np.rint(ALIKE * 9) + 128, 0, 255).astype(np.uint8), "planes, contexts"),
    "int4 alike": (np.clip(np.rint(ALIKE), -8, 7).astype(ml_dtypes.int4), "planes, contexts"),
    "values alike": (np.clip(np.rint(ALIKE), -8, 8) / np.float32(3) + np.float32(0), "codebook of 17, contexts"),
    "repeated": (np.tile(W[:10], (6, 1)), "planes, LZMA"),
    "one element": (normal(1), ""),
    "empty": (normal(0, 4), ""),
}  # fmt: skip

FIELDS = {
    "float_data": in_fields("w", TensorProto.FLOAT, W),
    "double_data": in_fields("w", TensorProto.DOUBLE, W),
    "int32_data of int8": in_fields("w", TensorProto.INT8, INT8),
    "int32_data of uint8": in_fields("w", TensorProto.UINT8, np.abs(INT8)),
    "int32_data of int32": in_fields("w", TensorProto.INT32, np.rint(W * 1e6).astype(np.int32)),
    "int32_data of int16": in_fields("w", TensorProto.INT16, np.rint(W * 5000).astype(np.int16)),
    "int32_data of float16": in_fields("w", TensorProto.FLOAT16, W.astype(np.float16)),
    "int32_data of int4": in_fields("w", TensorProto.INT4, np.clip(np.rint(W * 2), -7, 7).astype(ml_dtypes.int4)),
    "int64_data": in_fields("w", TensorProto.INT64, INT8.astype(np.int64)),
    "strings": in_fields("w", TensorProto.STRING, np.array([b"word"] * 100)),
}
