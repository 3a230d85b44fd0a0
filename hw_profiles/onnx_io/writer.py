"""Writes a Workload or a Graph as a runnable ONNX file, in float32 or int8 (QDQ), without torch.

The files that are measured and the files that are shipped come from here, so a candidate is scored as it will run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hw_profiles.errors import InputError, short_reason
from hw_profiles.network.activations import activation
from hw_profiles.network.graph import Graph, KeptNodes, Value, Weights
from hw_profiles.network.quantization import LARGEST_BIAS, Quantization, integer_tensors, quantized_weight, with_gates
from hw_profiles.network.workload import WEIGHTED, Op, Workload

OPSET = 20
IR_VERSION = 10

_WEIGHTED_NODES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ALONG_THE_LAST_AXIS = ("softmax", "layer_norm")


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
        InputError: a weight is missing or has another shape than in the workload.
    """
    weights = random_weights(workload) if weights is None else weights
    return write_graph(Graph(workload=workload, weights=weights, metadata=metadata or {}), quantization)


def write_graph(graph: Graph, quantization: Quantization | None = None) -> bytes:
    """The bytes of an ONNX file that says what the graph says, see :func:`write_onnx`; around nodes that were kept
    tensors are as they are held, and float where only such nodes make and read them.

    Raises:
        InputError: a weight is missing or has another shape than the workload says, or a name of the graph's file is
            needed for something else.
    """
    if quantization is not None:
        graph = replace(graph, workload=with_gates(graph.workload, quantization))
    workload = graph.workload
    for name, shape in workload.weights().items():
        got = graph.weights[name].shape if name in graph.weights else None
        if got != shape:
            raise InputError(f"weight {name} must have the shape {shape}, got {got}")
    writer = _Writer(graph, quantization)
    for op in workload.ops:
        writer.add(op)
    opsets = graph.opsets if graph.kept else {"": OPSET}
    domains = {"", *(node.domain for node in writer.nodes)}
    inputs, outputs = [_value(each) for each in graph.input_values], writer.output_values()
    model = helper.make_model(
        helper.make_graph(writer.nodes, "fitnas", inputs, outputs, writer.initializers),
        opset_imports=[helper.make_opsetid(name, opsets[name]) for name in sorted(domains) if name in opsets],
        ir_version=IR_VERSION,
        producer_name="fitnas",
    )
    helper.set_model_props(model, dict(graph.metadata))
    if graph.kept or graph.inputs:
        _check_names(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _check_names(model: Any) -> None:
    """Raise an InputError where nodes and names of others do not fit what is written around them."""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = short_reason(error)
        raise InputError(f"the network cannot be written with the names of its file ({reason})") from None


def random_weights(workload: Workload, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights that keep the activations at about unit variance."""
    generator = np.random.default_rng(seed)
    return {
        name: (generator.standard_normal(shape) * math.sqrt(2 / max(math.prod(shape[1:]), 1))).astype(np.float32)
        for name, shape in workload.weights().items()
    }


class _Writer:
    def __init__(self, graph: Graph, quantization: Quantization | None) -> None:
        workload = graph.workload
        self.graph = graph
        self.workload = workload
        self.weights = graph.weights
        self.quantization = quantization
        self.quantized = set(integer_tensors(workload, quantization)) if quantization else set[str]()
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.kept: set[str] = set()  # tensors and constants of nodes that were kept
        self.constants: set[str] = set()  # several operations may share a weight
        self.weights_of_rows, self.weights_in_integers = self._shared_weights()
        self.read_as: dict[str, str] = {}
        self.consumers = workload.consumers()
        for name in workload.inputs:
            if name in self.quantized:
                self._quantize(name)

    def _shared_weights(self) -> tuple[set[str], set[str]]:
        """The weights that an operation of one position reads, and those that one in integers reads."""
        ops = [op for op in self.workload.ops if op.kind in WEIGHTED]
        rows = {op.weight for op in ops if not self._of_many_positions(op)}
        integers = {op.weight for op in ops if self.quantization is not None and not self._in_float(op)}
        return rows, integers

    def output_values(self) -> list[Any]:
        """What it says of its outputs; one whose name is not that of its tensor gets a node that names it."""
        for value, tensor in self.graph.output_values:
            if value.name != tensor:
                self._node("Identity", [tensor], value.name)
        return [_value(value) for value, _ in self.graph.output_values]

    def add(self, op: Op) -> None:
        if op.name in self.graph.kept:
            self._keep(self.graph.kept[op.name])
        else:
            self._say(op)
        if op.name in self.quantized:
            self._quantize(op.name)

    def _keep(self, kept: KeptNodes) -> None:
        """Nodes as they are; several operations may be one node. A constant has another name where it is the name of
        an operation's weight, which may be held in another form, and a node where another operation is called so."""
        new = {tensor.name: f"{tensor.name}.kept" for tensor in kept.constants if tensor.name in self.weights}
        for tensor in kept.constants:
            if tensor.name not in self.kept:
                self.initializers.append(onnx.TensorProto())
                self.initializers[-1].CopyFrom(tensor)
                self.initializers[-1].name = new.get(tensor.name, tensor.name)
        self.kept |= {tensor.name for tensor in kept.constants}
        for node in kept.nodes:
            if self.kept.isdisjoint(node.output):
                changed = onnx.NodeProto()
                changed.CopyFrom(node)
                if node.name in self.workload.shapes:
                    changed.name = next(name for name in node.output if name)
                for i, name in enumerate(node.input):
                    changed.input[i] = new.get(name) or self._read_by(node, name)
                self.nodes.append(changed)
                self.kept |= set(filter(None, node.output))

    def _read_by(self, node: Any, name: str) -> str:
        if _is_pool_of_floats(node):
            return name  # which nothing rounded
        is_image = name in self.quantized and len(self.workload.shapes[name]) > 1
        weighted = node.op_type in _WEIGHTED_NODES and is_image
        return self._widened(name) if weighted else self.read_as.get(name, name)

    def _say(self, op: Op) -> None:
        inputs = [self.read_as.get(name, name) for name in op.inputs]
        if op.kind in WEIGHTED:
            if self._in_float(op) and op.inputs[0] in self.quantized:
                inputs = [self._widened(op.inputs[0])]
            inputs += self._weights(op)
        elif op.stores_weights:
            names = (op.weight, op.bias_name) if op.bias else (op.weight,)
            inputs += [self._constant(name, self.weights[name]) for name in names]
        self._NODES[op.kind](self, op, inputs)

    def _quantize(self, name: str) -> None:
        assert self.quantization is not None
        scale, zero_point = self.quantization.activations[name]
        kind = np.int8 if self.quantization.signed else np.uint8
        scales = [
            self._constant(f"{name}.scale", np.float32(scale)),
            self._constant(f"{name}.zero_point", kind(zero_point)),
        ]
        final = name == self.workload.output and name not in self.workload.inputs
        source = f"{name}.float" if final else name
        if final:
            self._call_output(name, source)
        self._node("QuantizeLinear", [source, *scales], f"{name}.quantized")
        if not final and all(self._in_float(op) and op.kind in WEIGHTED for op in self.consumers[name]):
            return  # nobody reads it by one scale
        self._node("DequantizeLinear", [f"{name}.quantized", *scales], name if final else f"{name}.dequantized")
        self.read_as[name] = name if final else f"{name}.dequantized"

    def _call_output(self, name: str, other: str) -> None:
        made = next(node for node in reversed(self.nodes) if name in node.output)
        made.output[list(made.output).index(name)] = made.name = other

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
        turned = self._of_many_positions(op)
        name = f"{op.weight}.turned" if turned and op.weight in self.weights_of_rows else op.weight
        if self.quantization is None or self._in_float(op):
            name = f"{name}.float" if op.weight in self.weights_in_integers else name
            names = [self._constant(name, np.ascontiguousarray(weight.T) if turned else weight)]
            return names if bias is None else [*names, self._constant(op.bias_name, bias)]
        scales = self.quantization.scales_of(op.weight, weight)
        integers = quantized_weight(weight, scales)
        if turned:
            names = [self._dequantized(name, np.ascontiguousarray(integers.T), scales, axis=1)]
            return names if bias is None else [*names, self._constant(op.bias_name, bias)]
        names = [self._dequantized(name, integers, scales)]
        if bias is None:
            return names
        bias_scales = (scales * np.float32(self.quantization.activations[op.inputs[0]][0])).astype(np.float32)
        rounded = np.rint(bias.astype(np.float64) / bias_scales)
        rounded = np.clip(rounded, -LARGEST_BIAS, LARGEST_BIAS).astype(np.int32)
        return [*names, self._dequantized(f"{op.name}.bias", rounded, bias_scales)]  # their scale is the input's, too

    def _dequantized(self, name: str, integers: NDArray[Any], scales: NDArray[np.float32], axis: int = 0) -> str:
        if f"{name}.quantized" in self.constants:
            return name
        inputs = [
            self._constant(f"{name}.quantized", integers),
            self._constant(f"{name}.scale", scales),
            self._constant(f"{name}.zero_point", np.zeros(scales.shape, integers.dtype)),
        ]
        self._node("DequantizeLinear", inputs, name, **({"axis": axis} if scales.ndim else {}))
        return name

    def _constant(self, name: str, value: Any) -> str:
        if name not in self.constants:
            self.constants.add(name)
            self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    def _conv(self, op: Op, inputs: list[str]) -> None:
        sides = slice(4 - len(op.weight_shape), 2)  # those of an image, or the second alone
        pairs = {"kernel_shape": op.kernel_size, "strides": op.stride, "dilations": op.dilation}
        shape = {name: list(pair)[sides] for name, pair in pairs.items()}
        begins, ends = list(op.padding[:2])[sides], list(op.padding[2:])[sides]
        self._node("Conv", inputs, op.name, pads=begins + ends, group=op.groups, **shape)

    def _of_many_positions(self, op: Op) -> bool:
        return op.kind == "linear" and len(self.workload.shapes[op.name]) != 2

    def _linear(self, op: Op, inputs: list[str]) -> None:
        if not self._of_many_positions(op):
            self._node("Gemm", inputs, op.name, transB=1)
            return
        x, weight, *bias = inputs
        self._node("MatMul", [x, weight], f"{op.name}.product" if bias else op.name)
        if bias:  # in float: ONNX Runtime's integer product of many positions makes float32 numbers
            self._node("Add", [f"{op.name}.product", *bias], op.name)

    def _activation(self, op: Op, inputs: list[str]) -> None:
        node = activation(op.function).node
        if op.function == "relu6":
            limits = [self._constant(f"{op.name}.{end}", np.float32(v)) for end, v in (("min", 0), ("max", 6))]
            self._node(node, [*inputs, *limits], op.name)
        elif op.function in _ALONG_THE_LAST_AXIS:
            self._node(node, inputs, op.name, axis=-1)
        elif op.function == "hard_sigmoid":
            self._node(node, inputs, op.name, alpha=1 / 6, beta=0.5)
        elif op.function == "silu":
            self._node("Sigmoid", inputs, f"{op.name}.sigmoid")
            self._node("Mul", [*inputs, f"{op.name}.sigmoid"], op.name)
        elif activation(op.function).written_as:
            self._node(node, inputs, op.name)
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


def _is_pool_of_floats(node: Any) -> bool:
    """Whether ONNX Runtime 1.32 cannot load an average pool in integers, or divides by whole windows at the border."""
    said = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return bool(node.op_type == "AveragePool" and (said.get("ceil_mode") or max(said.get("dilations", [1])) > 1))


def _value(value: Value) -> Any:
    return helper.make_tensor_value_info(value.name, value.data_type, list(value.shape))
