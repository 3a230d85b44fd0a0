"""Writes a Workload as a runnable ONNX file, in float32 or int8 (QDQ), without torch.

The files that are measured and the files that are shipped come from here, so a candidate is scored as it will run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.errors import InputError
from hw_profiles.network.quantization import LARGEST_BIAS, Quantization, integer_tensors, quantized_weight
from hw_profiles.network.workload import WEIGHTED, Op, Workload

OPSET = 20
IR_VERSION = 10
Weights = Mapping[str, NDArray[np.float32]]

_SIMPLE = {"relu": "Relu", "hard_swish": "HardSwish", "sigmoid": "Sigmoid", "gelu": "Gelu"}
_ALONG_THE_LAST_AXIS = {"softmax": "Softmax", "layer_norm": "LayerNormalization"}


def write_onnx(
    workload: Workload,
    weights: Weights | None = None,
    *,
    quantization: Quantization | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of an ONNX file with input (N, C, H, W) and the workload's names.

    Without ``weights`` they are drawn from a fixed seed. With ``quantization`` every tensor that the runtime holds as
    integers (see :func:`hw_profiles.network.quantization.integer_tensors`) is surrounded by QuantizeLinear and
    DequantizeLinear, and weights are signed 8-bit integers.

    Raises:
        InputError: a weight is missing or has another shape than the workload says.
    """
    weights = random_weights(workload) if weights is None else weights
    for name, shape in workload.weights().items():
        got = weights[name].shape if name in weights else None
        if got != shape:
            raise InputError(f"weight {name} must have the shape {shape}, got {got}")
    writer = _Writer(workload, weights, quantization)
    for op in workload.ops:
        writer.add(op)
    graph = helper.make_graph(
        writer.nodes,
        "fitnas",
        [_value(workload.input, workload)],
        [_value(workload.output, workload)],
        writer.initializers,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="fitnas"
    )
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def random_weights(workload: Workload, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights that keep the activations at about unit variance."""
    generator = np.random.default_rng(seed)
    return {
        name: (generator.standard_normal(shape) * math.sqrt(2 / max(math.prod(shape[1:]), 1))).astype(np.float32)
        for name, shape in workload.weights().items()
    }


class _Writer:
    def __init__(self, workload: Workload, weights: Weights, quantization: Quantization | None) -> None:
        self.workload = workload
        self.weights = weights
        self.quantization = quantization
        self.quantized = set(integer_tensors(workload, quantization)) if quantization else set[str]()
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.made: set[str] = set()
        self.read_as: dict[str, str] = {}
        self.consumers = workload.consumers()
        if workload.input in self.quantized:
            self._quantize(workload.input)

    def add(self, op: Op) -> None:
        inputs = [self.read_as.get(name, name) for name in op.inputs]
        if op.kind in WEIGHTED:
            if self._in_float(op) and op.inputs[0] in self.quantized:
                inputs = [self._widened(op.inputs[0])]
            inputs += self._weights(op)
        elif op.stores_weights:
            names = (op.weight, op.bias_name) if op.bias else (op.weight,)
            inputs += [self._constant(name, self.weights[name]) for name in names]
        self._NODES[op.kind](self, op, inputs)
        if op.name in self.quantized:
            self._quantize(op.name)

    def _quantize(self, name: str) -> None:
        assert self.quantization is not None
        scale, zero_point = self.quantization.activations[name]
        kind = np.int8 if self.quantization.signed else np.uint8
        scales = [
            self._constant(f"{name}.scale", np.float32(scale)),
            self._constant(f"{name}.zero_point", kind(zero_point)),
        ]
        final = name == self.workload.output
        source = f"{name}.float" if final else name
        if final:
            self.nodes[-1].output[0] = self.nodes[-1].name = source
        self._node("QuantizeLinear", [source, *scales], f"{name}.quantized")
        if not final and all(self._in_float(op) and op.kind in WEIGHTED for op in self.consumers[name]):
            return  # nobody reads it by one scale
        self._node("DequantizeLinear", [f"{name}.quantized", *scales], name if final else f"{name}.dequantized")
        self.read_as[name] = name if final else f"{name}.dequantized"

    def _in_float(self, op: Op) -> bool:
        return self.quantization is not None and op.name in self.quantization.in_float

    def _widened(self, name: str) -> str:
        """An integer tensor as an operation in float reads it: by a scale for each channel, though all are the same.
        ONNX Runtime 1.32 rounds the weights of an operation that reads by one scale and is quantized again to 8 bits.
        """
        assert self.quantization is not None
        widened = f"{name}.widened"
        if widened not in self.read_as:
            scale, zero_point = self.quantization.activations[name]
            kind = np.int8 if self.quantization.signed else np.uint8
            channels = self.workload.shapes[name][1]
            scales = [
                self._constant(f"{name}.scales", np.full(channels, scale, np.float32)),
                self._constant(f"{name}.zero_points", np.full(channels, zero_point, kind)),
            ]
            self._node("DequantizeLinear", [f"{name}.quantized", *scales], widened, axis=1)
            self.read_as[widened] = widened
        return widened

    def _weights(self, op: Op) -> list[str]:
        weight = self.weights[op.weight]
        bias = self.weights[op.bias_name] if op.bias else None
        if self.quantization is None or self._in_float(op):
            names = [self._constant(op.weight, weight)]
            return names if bias is None else [*names, self._constant(op.bias_name, bias)]
        scales = self.quantization.scales_of(op.weight, weight)
        names = [self._dequantized(op.weight, quantized_weight(weight, scales), scales)]
        if bias is None:
            return names
        bias_scales = (scales * np.float32(self.quantization.activations[op.inputs[0]][0])).astype(np.float32)
        rounded = np.rint(bias.astype(np.float64) / bias_scales)
        rounded = np.clip(rounded, -LARGEST_BIAS, LARGEST_BIAS).astype(np.int32)
        return [*names, self._dequantized(f"{op.name}.bias", rounded, bias_scales)]  # their scale is the input's, too

    def _dequantized(self, name: str, integers: NDArray[Any], scales: NDArray[np.float32]) -> str:
        if name in self.made:
            return name
        inputs = [
            self._constant(f"{name}.quantized", integers),
            self._constant(f"{name}.scale", scales),
            self._constant(f"{name}.zero_point", np.zeros(scales.shape, integers.dtype)),
        ]
        self._node("DequantizeLinear", inputs, name, **({"axis": 0} if scales.ndim else {}))
        return name

    def _constant(self, name: str, value: Any) -> str:
        if name not in self.made:  # several operations may share a weight
            self.made.add(name)
            self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.made.add(output)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    def _conv(self, op: Op, inputs: list[str]) -> None:
        shape = {"kernel_shape": list(op.kernel_size), "strides": list(op.stride), "dilations": list(op.dilation)}
        self._node("Conv", inputs, op.name, pads=list(op.padding), group=op.groups, **shape)

    def _linear(self, op: Op, inputs: list[str]) -> None:
        if len(self.workload.shapes[op.name]) == 2:
            self._node("Gemm", inputs, op.name, transB=1)
            return
        if op.bias or self.quantization is not None:
            raise InputError(f"{op.name}: a linear layer of many positions is written in float32 and without bias only")
        turned = self._constant(f"{op.name}.turned", np.ascontiguousarray(self.weights[op.weight].T))
        self.initializers = [t for t in self.initializers if t.name != op.weight]
        self._node("MatMul", [inputs[0], turned], op.name)

    def _activation(self, op: Op, inputs: list[str]) -> None:
        if op.function in _SIMPLE:
            self._node(_SIMPLE[op.function], inputs, op.name)
        elif op.function == "relu6":
            limits = [self._constant(f"{op.name}.{end}", np.float32(v)) for end, v in (("min", 0), ("max", 6))]
            self._node("Clip", [*inputs, *limits], op.name)
        elif op.function in _ALONG_THE_LAST_AXIS:
            self._node(_ALONG_THE_LAST_AXIS[op.function], inputs, op.name, axis=-1)
        elif op.function == "hard_sigmoid":
            self._node("HardSigmoid", inputs, op.name, alpha=1 / 6, beta=0.5)
        elif op.function == "silu":
            self._node("Sigmoid", inputs, f"{op.name}.sigmoid")
            self._node("Mul", [*inputs, f"{op.name}.sigmoid"], op.name)
        else:
            raise InputError(f"{op.name}: no ONNX operation is known for the function {op.function!r}")

    def _pool(self, op: Op, inputs: list[str]) -> None:
        kind = "AveragePool" if op.kind == "avg_pool" else "MaxPool"
        shape = {"kernel_shape": list(op.kernel_size), "strides": list(op.stride)}
        self._node(kind, inputs, op.name, pads=list(op.padding), **shape)

    def _concat(self, op: Op, inputs: list[str]) -> None:
        self._node("Concat", inputs, op.name, axis=1)

    def _plain(self, op: Op, inputs: list[str]) -> None:
        kinds = {
            "add": "Add", "mul": "Mul", "matmul": "MatMul", "global_avg_pool": "GlobalAveragePool", "flatten": "Flatten"
        }  # fmt: skip
        self._node(kinds[op.kind], inputs, op.name)

    _NODES: ClassVar[dict[str, Callable[[_Writer, Op, list[str]], None]]] = {
        "conv": _conv,
        "linear": _linear,
        "activation": _activation,
        "avg_pool": _pool,
        "max_pool": _pool,
        "add": _plain,
        "mul": _plain,
        "matmul": _plain,
        "global_avg_pool": _plain,
        "flatten": _plain,
        "concat": _concat,
    }


def _value(name: str, workload: Workload) -> Any:
    shape: list[str | int | None] = ["N", *workload.shapes[name][1:]]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
