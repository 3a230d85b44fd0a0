"""Reads a QDQ ONNX file as the layers of a C99 program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compress.c99.layers import (
    INTEGERS,
    AveragePool,
    Binary,
    Concat,
    Convolution,
    MaxPool,
    Network,
    Pad,
    ProgramLayer,
    Softmax,
    Step,
    Table,
    Target,
    Tensor,
    Window,
    merged,
)  # fmt: skip
from compress.c99.lookup_tables import table
from compress.c99.qdq_graph import Graph, TensorQuantization, place
from compress.c99.tensor_layout import Tensors
from compress.data.preprocessing import METADATA_KEY, Preprocessing
from hw_profiles.errors import InputError
from hw_profiles.memory.inplace import line_buffer_rows
from hw_profiles.memory.planner import Schedule, plan
from hw_profiles.network.workload import Op, Workload
from hw_profiles.onnx_io.reader import read_metadata, read_onnx
from hw_profiles.onnx_io.rewrites.normal_form import normal_form
from hw_profiles.onnx_io.untrusted_file import load_model, shown
from hw_profiles.runtimes.fusion import Kernel, fuse

KNOWN = (
    "convolutions and linear layers, sums and products of two tensors, pooling, concatenation, padding with zeros, "
    "softmax, and functions of one number"
)
_CLAMPS = ("relu", "relu6", "clip")
_MOST_SUM = 2**31 - 1
LARGEST_SIDE = 2**15 - 1
"""Kernels keep sides of images and windows in 16 bits."""


def read_network(source: Path | bytes) -> Network:
    """The integers, scales and memory of a file whose tensors are 8-bit between QuantizeLinear and DequantizeLinear.

    Unsigned integers are shifted by 128, which changes nothing. Images lie with the channels last.

    Raises:
        InputError: an operation or a format that no kernel is known for; the node is named, and what can be done.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from hw_profiles.network.quantization import fixed_quantization
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> network = read_network(write_onnx(w, quantization=fixed_quantization(w)))
    >>> len(network.layers), network.arena_bytes
    (14, 49152)
    """
    model = normal_form(load_model(source), batch=1)
    workload = read_onnx(model.SerializeToString())
    graph = Graph(model)
    if len(model.graph.output) != 1:
        raise InputError(f"a C99 program has one output, the file has {len(model.graph.output)}")
    builder = _Builder(graph, workload)
    builder.check_weights()
    kernels = fuse(workload, "c99")
    for kernel in kernels:
        builder.check(kernel)
    schedule = plan(workload, kernels, "c99")
    if schedule.arena_bytes > _MOST_SUM:
        raise InputError(f"a C99 program has an arena of at most {_MOST_SUM} bytes, this needs {schedule.arena_bytes}")
    record = read_metadata(source).get(METADATA_KEY)
    return builder.network(schedule, None if record is None else Preprocessing.from_json(record))


class _Builder:
    def __init__(self, graph: Graph, workload: Workload) -> None:
        self.graph = graph
        self.workload = workload
        self.held = Tensors(graph, workload)

    def check_weights(self) -> None:
        """Where some operations have weights in integers all must, unlike those of a mixed network."""
        producers = [self.graph.producers.get(op.name) for op in self.workload.ops if op.stores_weights]
        nodes = [node for node in producers if node is not None]
        in_float = [node for node in nodes if self.graph.float_weight(node)]
        if 0 < len(in_float) < len(nodes):
            raise InputError(
                f"{place(in_float[0])}: a C99 program computes in 8-bit integers alone, and {len(in_float)} of "
                f"{len(nodes)} operations have float weights; quantize them too, or train in integers (stage qat)"
            )

    def check(self, kernel: Kernel) -> None:
        """Every tensor of a kernel must be held as 8-bit integers, and its first operation be known."""
        if kernel.ops[0].kind not in _STEPS:
            raise InputError(self._unknown(kernel.ops[0]))
        for op in kernel.ops:
            for numbers, most in (((*op.kernel_size, *op.padding), LARGEST_SIDE), ((*op.stride, *op.dilation), 127)):
                if min(numbers) < 0 or max(numbers) > most:
                    raise InputError(f"{self.held.place(op)}: its sizes must be in 0..{most}, got {numbers}")
        for name in (*kernel.inputs, kernel.output):
            tensor = self.held.tensor(name)
            if max(tensor.shape) > LARGEST_SIDE:
                raise InputError(f"tensor {shown(name)}: sides must be at most {LARGEST_SIDE}, got {tensor.shape}")
            self.held.check_view(name, kernel.ops[0])

    def network(self, schedule: Schedule, preprocessing: Preprocessing | None) -> Network:
        layers = tuple(self._layer(schedule, i) for i in range(len(schedule.kernels)))
        self.held.check_view(self.workload.output, None)
        source, output = self.held.tensor(self.workload.input), self.held.tensor(self.held.root(self.workload.output))
        tensors = {t.name for layer in layers for t in (*layer.inputs, layer.output)}
        return Network(
            input=source,
            output=output,
            input_offset=schedule.offsets[source.name],
            layers=layers,
            arena_bytes=schedule.arena_bytes,
            preprocessing=preprocessing,
            stored={name: self.held.stored(name) for name in tensors},
        )

    def _layer(self, schedule: Schedule, i: int) -> ProgramLayer:
        kernel = schedule.kernels[i]
        output = self.held.tensor(kernel.output)
        inputs = tuple(self.held.tensor(name) for name in kernel.ops[0].inputs)
        over, ring = schedule.overwrites[i], schedule.scratch_offsets[i]
        rows = 0
        if over is not None and ring is not None and schedule.scratch[i]:
            read = self.workload.shapes[kernel.inputs[0]]
            rows = line_buffer_rows(kernel.ops[0], read, self.workload.shapes[kernel.output])
        return ProgramLayer(
            name=kernel.output,
            inputs=inputs,
            output=output,
            steps=merged(self._steps(kernel, output)),
            offsets=tuple(schedule.offsets[t.name] for t in inputs),
            offset=schedule.offsets[output.name],
            ring_rows=rows,
            ring_offset=ring or 0,
        )

    def _steps(self, kernel: Kernel, output: Tensor) -> tuple[Step, ...]:
        op = kernel.ops[0]
        after = kernel.ops[1] if len(kernel.ops) > 1 else None
        output_name, between, target = op.name, after, None
        if after is not None and op.name not in self.graph.quantizations:
            output_name, between = after.name, None
            target = self._clamped(after)
        quantization = self.held.quantization(output_name)
        target = target or Target(zero_point=quantization.zero_point)
        steps = _STEPS[op.kind](self, op, quantization, target)
        if between is not None:
            steps += self._function(between, quantization)
            quantization = self.held.quantization(between.name)
        if output.quantization != quantization:
            steps += (Table(values=output.quantization.of(quantization.to_float(INTEGERS))),)
        return steps

    def _clamped(self, op: Op) -> Target:
        """A ReLU or Clip whose input is not quantized: the limits of what comes out."""
        if op.function not in _CLAMPS:
            raise InputError(
                f"{self.held.place(op)}: its input {shown(op.inputs[0])} must be quantized, or it be a ReLU or Clip"
            )
        quantization = self.held.quantization(op.name)
        ends = np.array([-np.inf, np.inf], np.float32)
        node = self.held.node(op)
        lowest, highest = (self._limit(node, i, ends[i - 1]) for i in (1, 2))
        values = np.clip(ends, lowest, highest) if node.op_type == "Clip" else np.maximum(ends, 0)
        low, high = quantization.of(values).tolist()
        return Target(zero_point=quantization.zero_point, low=low, high=high)

    def _limit(self, node: Any, i: int, default: np.float32) -> np.float32:
        if node.op_type == "Clip" and len(node.input) > i and node.input[i]:
            value = self.graph.scalar(node.input[i])
            if value is None:
                raise InputError(f"{place(node)}: its limits must be constant")
            return np.float32(value)
        return np.float32(self.graph.attributes(node).get("min" if i == 1 else "max", default))

    def _weighted(self, op: Op, quantization: TensorQuantization, to: Target) -> tuple[Step, ...]:
        node, (name,) = self.held.node(op), op.inputs
        if op.normalized or node.op_type not in ("Conv", "Gemm", "MatMul"):
            raise InputError(f"{place(node)}: must be folded into a convolution or Gemm before quantization")
        source = self.held.tensor(name)
        rows_first = op.kind == "conv" or self.graph.attributes(node).get("transB", 0)
        weight, scales = self.graph.weight(node, 1, 0 if rows_first else 1)
        if op.kind == "linear":
            weight = self._linear(op, node, weight, source)
        products = np.broadcast_to(np.float32(source.quantization.scale) * scales, (op.out_channels,))
        bias = self.graph.bias(node, 2, products)
        size = (weight.shape[2], weight.shape[3])
        packed = np.ascontiguousarray(weight.transpose(0, 2, 3, 1))
        largest = 255 * np.abs(packed.astype(np.int64)).sum(axis=(1, 2, 3)) + np.abs(bias)
        if largest.max() > _MOST_SUM:
            raise InputError(f"{place(node)}: its sums must fit 32 bits, got up to {largest.max()}")
        return (
            Convolution(
                weight=packed,
                bias=bias.astype(np.int32),
                multiplier=(products / np.float32(quantization.scale)).astype(np.float32),
                window=Window(kernel_size=size, stride=op.stride, padding=op.padding, dilation=op.dilation),
                groups=op.groups,
                zero_point=source.quantization.zero_point,
                to=to,
            ),
        )

    def _linear(self, op: Op, node: Any, weight: Any, source: Tensor) -> Any:
        """The weights (out, in) of a linear layer as those of a window over the whole image."""
        attributes = self.graph.attributes(node)
        if attributes.get("alpha", 1.0) != 1 or attributes.get("beta", 1.0) != 1 or attributes.get("transA", 0):
            raise InputError(f"{place(node)}: must have alpha and beta 1 and no transA")
        if node.op_type == "MatMul" and (op.bias or node.input[1] not in self.graph.producers):
            raise InputError(
                f"{place(node)}: with a bias or with the weights first it must be a Gemm; export it as one"
            )
        if not attributes.get("transB", 0):
            weight = weight.T
        height, width, channels = source.shape
        if weight.shape[1] != source.size or len(self.workload.shapes[op.inputs[0]]) != 2:
            raise InputError(f"{place(node)}: must read {source.size} numbers, reads {weight.shape[1]}")
        return weight.reshape(len(weight), channels, height, width)

    def _pool(self, op: Op, quantization: TensorQuantization, to: Target) -> tuple[Step, ...]:
        source = self.held.tensor(op.inputs[0])
        size = op.kernel_size
        if op.kind in ("global_avg_pool", "reduce"):
            size = (source.shape[0], source.shape[1])
        window = Window(kernel_size=size, stride=op.stride, padding=op.padding, dilation=op.dilation)
        if op.kind == "max_pool" or (op.kind == "reduce" and op.function == "max_pool"):
            return (MaxPool(window=window), *self._requantized(source.quantization, quantization))
        if op.kind == "reduce" or self.held.node(op).op_type == "LpPool":
            raise InputError(self._unknown(op))
        attributes = self.graph.attributes(self.held.node(op))
        whole = op.kind == "avg_pool" and bool(attributes.get("count_include_pad", 0))
        if whole and attributes.get("ceil_mode", 0):
            raise InputError(f"{self.held.place(op)}: must not have both count_include_pad and ceil_mode")
        return (AveragePool(window=window, whole=whole, before=source.quantization, scale=quantization.scale, to=to),)

    def _binary(self, op: Op, quantization: TensorQuantization, to: Target) -> tuple[Step, ...]:
        if len(op.inputs) == 1 and not op.weight_shape:
            return self._function(op, self.held.tensor(op.inputs[0]).quantization)
        kind = {"none": op.kind}.get(op.function, op.function)
        if len(op.inputs) != 2 or op.weight_shape or kind not in ("add", "sub", "mul"):
            raise InputError(self._unknown(op))
        a, b = (self.held.tensor(name) for name in op.inputs)
        output = self.held.image(op.name)
        ranks = {len(self.workload.shapes[name]) for name in (*op.inputs, op.name)}
        if len(ranks) > 1 or any(t.shape not in (output, (1, 1, output[2])) for t in (a, b)):
            raise InputError(
                f"{self.held.place(op)}: must have images of one size or one pixel, got {a.shape} and {b.shape}"
            )
        return (Binary(kind=kind, before=(a.quantization, b.quantization), scale=quantization.scale, to=to),)

    def _activation(self, op: Op, quantization: TensorQuantization, to: Target) -> tuple[Step, ...]:
        return self._function(op, self.held.tensor(op.inputs[0]).quantization)

    def _function(self, op: Op, before: TensorQuantization) -> tuple[Step, ...]:
        after = self.held.quantization(op.name)
        if op.function != "softmax":
            return (Table(values=table(self.graph, op.inputs[0], op.name, before, after)),)
        node = self.held.node(op)
        height, width, _ = self.held.image(op.name)
        rank = len(self.workload.shapes[op.name])
        if (height, width) != (1, 1) or self.graph.attributes(node).get("axis", -1) % rank != 1:
            raise InputError(f"{place(node)}: must be over the channels of one pixel; put it after the linear layer")
        steps = np.arange(256).astype(np.float32) * np.float32(before.scale)
        powers = np.exp(-steps.astype(np.float64)).astype(np.float32)
        return (Softmax(powers=powers, scale=after.scale, to=Target(zero_point=after.zero_point)),)

    def _concat(self, op: Op, quantization: TensorQuantization, to: Target) -> tuple[Step, ...]:
        node = self.held.node(op)
        rank = len(self.workload.shapes[op.name])
        if op.weight_shape or self.graph.attributes(node).get("axis", 0) % rank != 1:
            raise InputError(f"{place(node)}: must be of channels, and of no constant")
        found = (self._requantized(self.held.tensor(name).quantization, quantization) for name in op.inputs)
        return (Concat(tables=tuple(steps[0].values if steps else None for steps in found)),)

    def _pad(self, op: Op, quantization: TensorQuantization, to: Target) -> tuple[Step, ...]:
        if op.function != "none":
            raise InputError(f"{self.held.place(op)}: must add zeros to height and width, got {op.function}")
        before = self.held.tensor(op.inputs[0]).quantization
        pad = Pad(padding=op.padding, zero_point=before.zero_point)
        return (pad, *self._requantized(before, quantization))

    def _unknown(self, op: Op) -> str:
        return f"{self.held.place(op)}: no C99 kernel is known for it; known are {KNOWN}: replace it or leave it out"

    def _requantized(self, before: TensorQuantization, after: TensorQuantization) -> tuple[Table, ...]:
        return () if before == after else (Table(values=after.of(before.to_float(INTEGERS))),)


_Maker = Callable[[_Builder, Op, TensorQuantization, Target], tuple[Step, ...]]
_STEPS: Mapping[str, _Maker] = {
    "conv": _Builder._weighted,
    "linear": _Builder._weighted,
    "add": _Builder._binary,
    "mul": _Builder._binary,
    "global_avg_pool": _Builder._pool,
    "avg_pool": _Builder._pool,
    "max_pool": _Builder._pool,
    "reduce": _Builder._pool,
    "activation": _Builder._activation,
    "concat": _Builder._concat,
    "pad": _Builder._pad,
}
