"""Int8 files for the tests: of our networks, and of graphs that ONNX Runtime quantizes; and its nodes one by one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from compress.c99.layers import Network
from compress.c99.runtime_layers import LayersAlone
from hw_profiles.network.quantization import Quantization, quantized_tensors
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from search_spaces import Arch

Weights = Mapping[str, NDArray[Any]]


def session(model: bytes, *, optimized: bool = False) -> ort.InferenceSession:
    options = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def images(shape: tuple[int, int, int], n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


def network_file(path: Path, arch: Arch, *, seed: int = 0, metadata: Mapping[str, str] | None = None) -> Path:
    """An arch with random weights, its scales from the ranges that random images have in the float file."""
    workload = arch.workload()
    weights = random_weights(workload, seed)
    x = images(arch.input_shape, 4, seed)
    model = onnx.load_model_from_string(write_onnx(workload, weights))
    names = quantized_tensors(workload)
    known = {workload.input, workload.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    float_session = session(model.SerializeToString())
    outputs = [output.name for output in float_session.get_outputs()]
    values = {workload.input: x} | dict(zip(outputs, float_session.run(outputs, {workload.input: x}), strict=True))
    scales = Quantization(activations={name: _scale(values[name]) for name in names})
    path.write_bytes(write_onnx(workload, weights, quantization=scales, metadata=metadata))
    return path


def _scale(values: NDArray[np.float32]) -> tuple[float, int]:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = max((high - low) / 255, 1e-8)
    return scale, round(-low / scale)


class _Reader(CalibrationDataReader):
    def __init__(self, x: NDArray[np.float32]) -> None:
        self.waiting = [{"x": x[i : i + 1]} for i in range(len(x))]

    def get_next(self) -> dict[str, Any] | None:
        return self.waiting.pop() if self.waiting else None


def graph_file(
    path: Path,
    nodes: list[Any],
    weights: Weights,
    shape: tuple[int, int, int],
    *,
    signed: bool = False,
    per_channel: bool = True,
    unsigned_weights: bool = False,
) -> Path:
    """A float graph from ``x`` to ``y`` as ONNX Runtime's own quantizer writes it."""
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    source = path.with_suffix(".float.onnx")
    onnx.save(onnx.shape_inference.infer_shapes(model), source)
    quantize_static(
        source,
        path,
        _Reader(images(shape, 4)),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        weight_type=QuantType.QUInt8 if unsigned_weights else QuantType.QInt8,
    )
    return path


def onnx_layers(file: Path, network: Network, values: Mapping[str, NDArray[np.int8]]) -> dict[str, NDArray[np.int64]]:
    """What ONNX Runtime's nodes, without optimization, make of the given inputs of every layer: (H, W, C) by tensor."""
    return LayersAlone(file, network).made(values)
