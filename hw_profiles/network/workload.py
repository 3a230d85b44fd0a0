"""A Workload: a network as a list of operations; the one place where MACs, weights and bytes are counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import FLOAT32, INT8_WEIGHT, INT32_BIAS, UINT8, TensorFormat, check_precision

Shape = tuple[int, ...]
Pair = tuple[int, int]
InputShape = tuple[int, ...] | Mapping[str, tuple[int, ...]] | None
"""Sides after the batch: of the one input that leaves some open, or by name."""

WEIGHTED = ("conv", "conv_transpose", "linear")
VIEWS = ("flatten", "reshape")
UNKNOWN = "other"


@dataclass(slots=True, unsafe_hash=True)  # frozen ones take four times as long to make
class Op:
    """One operation before any fusion, batch normalization already folded into the convolution.

    ``kind``:

    - with weights: conv (out, in / groups, height, width), conv_transpose (in, out / groups, height, width), linear
      (out, in);
    - of two tensors: matmul (with a constant of more than two axes: (..., in, out), whichever side it stands on), add,
      mul (subtraction and division as well);
    - of one: activation (``function`` says which, softmax and layer_norm among them), global_avg_pool, avg_pool,
      max_pool, reduce, affine (a normalization that could not be folded);
    - that only move numbers: concat, slice, pad, transpose, resize, gather, expand;
    - that cost nothing: flatten, reshape;
    - other: one that nobody here knows; ``function`` is its name in the file.

    ``kernel_size``, ``stride`` and ``dilation`` are (height, width), ``padding`` is top, left, bottom, right. The
    output tensor has the name of the operation. ``normalized`` says that a batch normalization was folded into it,
    which the trainable module has a scale for each channel more for. ``shared_weight`` and ``shared_bias`` name the
    tensors of an earlier operation where this one reads the same: they are stored and counted once.
    """

    name: Final[str]
    kind: Final[str]
    inputs: Final[tuple[str, ...]]
    weight_shape: Final[Shape] = ()
    bias: Final[bool] = False
    stride: Final[Pair] = (1, 1)
    padding: Final[tuple[int, int, int, int]] = (0, 0, 0, 0)
    groups: Final[int] = 1
    kernel_size: Final[Pair] = (1, 1)
    dilation: Final[Pair] = (1, 1)
    function: Final[str] = "none"
    normalized: Final[bool] = False
    shared_weight: Final[str] = ""
    shared_bias: Final[str] = ""

    @property
    def weight(self) -> str:
        """Name of the weight tensor."""
        return self.shared_weight or f"{self.name}.weight"

    @property
    def bias_name(self) -> str:
        """Name of the bias tensor."""
        return self.shared_bias or f"{self.name}.bias"

    @property
    def stores_weights(self) -> bool:
        """Whether it has weights of its own; those of a convolution or product of two tensors are computed."""
        return bool(self.weight_shape) and not (self.kind in WEIGHTED and len(self.inputs) > 1)

    @property
    def out_channels(self) -> int:
        """Channels that a weighted operation makes."""
        if self.kind == "conv_transpose":
            return self.weight_shape[1] * self.groups
        return self.weight_shape[0]

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved alone."""
        return self.kind == "conv" and self.groups > 1 and self.weight_shape[1] == 1


@dataclass(frozen=True, slots=True)
class Workload:
    """Operations in an order that runs, and the shape (batch 1) of every tensor between them.

    ``input`` is the tensor that the network reads, ``further_inputs`` are others where it reads several; ``output`` and
    ``further_outputs`` likewise.

    >>> b = WorkloadBuilder("input", (1, 3, 8, 8))
    >>> _ = b.conv("stem", "input", 4, kernel_size=3)
    >>> w = b.build()
    >>> w.macs, w.weight_count, w.shapes["stem"]
    (6912, 112, (1, 4, 8, 8))
    """

    input: str
    output: str
    ops: tuple[Op, ...]
    shapes: Mapping[str, Shape]
    formats: Mapping[str, TensorFormat] = field(default_factory=lambda: MappingProxyType({}))
    further_inputs: tuple[str, ...] = ()
    further_outputs: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """All tensors that it reads."""
        return (self.input, *self.further_inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """All tensors that its caller reads."""
        return (self.output, *self.further_outputs)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions, linear and matmul operations."""
        return sum(self.op_macs(op) for op in self.ops)

    @property
    def weight_count(self) -> int:
        """Stored weights and biases, batch normalization folded."""
        return self.weight_amounts()[0]

    @property
    def params(self) -> int:
        """Trainable parameters of the module: the weights, and a scale for each normalized channel."""
        return self.weight_count + self.norm_scales

    @property
    def norm_scales(self) -> int:
        """Scales of batch normalizations, which are trained but folded into the weights."""
        return sum([op.out_channels for op in self.ops if op.normalized])

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights and biases in their formats, and of their scales."""
        return self.weight_amounts()[1]

    def weight_amounts(self) -> tuple[int, int]:
        """``weight_count`` and ``weight_bytes`` in one pass."""
        total = size = 0
        for op in self.ops:
            if op.shared_weight or op.shared_bias:
                return self._amounts_of_tensors()
            if op.stores_weights:
                stored, count = self.format(op.weight), math.prod(op.weight_shape)
                total += count
                size += stored.bytes(count) + stored.scale_bytes(op.weight_shape[0], count)
                if op.bias:
                    total += op.out_channels
                    size += self.format(op.bias_name).bytes(op.out_channels)
        return total, size

    def _amounts_of_tensors(self) -> tuple[int, int]:
        """The same where operations share tensors: each counts once."""
        total = size = 0
        scaled = {op.weight for op in self.ops}
        for name, shape in self.weights().items():
            stored, count = self.format(name), math.prod(shape)
            total += count
            size += stored.bytes(count) + (stored.scale_bytes(shape[0], count) if name in scaled else 0)
        return total, size

    def op_macs(self, op: Op) -> int:
        """Multiply-accumulates of one operation."""
        if op.kind == "conv_transpose":
            return math.prod(self.shapes[op.inputs[0]]) * math.prod(op.weight_shape[1:])
        if op.kind in WEIGHTED:
            positions = math.prod(self.shapes[op.name]) // op.weight_shape[0]
            return positions * math.prod(op.weight_shape)
        if op.kind == "matmul":
            summed = op.weight_shape[-2:][0] if op.weight_shape else self.shapes[op.inputs[0]][-1]
            return math.prod(self.shapes[op.name]) * summed
        return 0

    def weights(self) -> dict[str, Shape]:
        """Shapes of all weight and bias tensors by name."""
        shapes: dict[str, Shape] = {}
        for op in self.ops:
            if op.stores_weights:
                shapes.setdefault(op.weight, op.weight_shape)
                if op.bias:
                    shapes.setdefault(op.bias_name, (op.out_channels,))
        return shapes

    def format(self, name: str) -> TensorFormat:
        """How a tensor is stored."""
        return self.formats.get(name, FLOAT32)

    def tensor_of(self, name: str) -> str:
        """The tensor of that name, or the one that it is a copy of, in another layout or type (``name@layout``)."""
        while name not in self.shapes and "@" in name:
            name = name.rpartition("@")[0]
        return name

    def tensor_bytes(self, name: str) -> int:
        """Bytes of an activation tensor."""
        return self.formats.get(name, FLOAT32).bytes(math.prod(self.shapes[name]))

    def consumers(self) -> dict[str, list[Op]]:
        """The operations that read each tensor."""
        consumers: dict[str, list[Op]] = {name: [] for name in self.shapes}
        for op in self.ops:
            for name in op.inputs:
                consumers[name].append(op)
        return consumers

    def with_precision(self, precision: str) -> Workload:
        """The same operations with the formats that ``"fp32"`` or ``"int8"`` stands for."""
        if check_precision(precision) == "fp32":
            return replace(self, formats=MappingProxyType({}))
        formats = dict.fromkeys(self.shapes, UINT8)
        for name, shape in self.weights().items():
            formats[name] = INT8_WEIGHT if len(shape) > 1 else INT32_BIAS
        return replace(self, formats=MappingProxyType(formats))


class WorkloadBuilder:
    """Appends operations and works out the shapes. Every method returns the name of the tensor that it made."""

    def __init__(self, input_name: str, input_shape: Shape) -> None:
        self._input = input_name
        self._further: list[str] = []
        self._ops: list[Op] = []
        self.shapes: dict[str, Shape] = {input_name: input_shape}

    def further_input(self, name: str, shape: Shape) -> str:
        """Another tensor that the network reads."""
        if name in self.shapes:
            raise InputError(f"tensor names must differ, got {name!r} twice")
        self._further.append(name)
        self.shapes[name] = shape
        return name

    def conv(
        self,
        name: str,
        x: str,
        out_channels: int,
        *,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: tuple[int, int, int, int] | None = None,
        groups: int = 1,
        dilation: int | Pair = 1,
        bias: bool = True,
        normalized: bool = False,
    ) -> str:
        """A convolution; ``padding`` None is k // 2 on every side."""
        _, channels, height, width = self.shapes[x]
        k, s, d = _pair(kernel_size), _pair(stride), _pair(dilation)
        top, left, bottom, right = padding or (k[0] // 2, k[1] // 2, k[0] // 2, k[1] // 2)
        rows = (height + top + bottom - d[0] * (k[0] - 1) - 1) // s[0] + 1
        columns = (width + left + right - d[1] * (k[1] - 1) - 1) // s[1] + 1
        weight_shape = (out_channels, channels // groups, *k)
        op = Op(
            name, "conv", (x,), weight_shape, bias, s, (top, left, bottom, right), groups, k, d, normalized=normalized
        )
        return self.append(op, (1, out_channels, rows, columns))

    def linear(self, name: str, x: str, out_features: int, *, bias: bool = True) -> str:
        """(…, in) -> (…, out)."""
        *rows, features = self.shapes[x]
        return self.append(Op(name, "linear", (x,), (out_features, features), bias), (*rows, out_features))

    def activation(self, name: str, x: str, function: str) -> str:
        """An elementwise function of one tensor; ``"none"`` adds nothing."""
        if function == "none":
            return x
        return self.append(Op(name, "activation", (x,), function=function), self.shapes[x])

    def binary(self, name: str, kind: str, a: str, b: str) -> str:
        """``add`` or ``mul`` of two tensors, broadcast."""
        shape = tuple(max(i, j) for i, j in zip(self.shapes[a], self.shapes[b], strict=True))
        return self.append(Op(name, kind, (a, b)), shape)

    def matmul(self, name: str, a: str, b: str) -> str:
        """(…, n, k) times (…, k, m)."""
        return self.append(Op(name, "matmul", (a, b)), (*self.shapes[a][:-1], self.shapes[b][-1]))

    def pool(
        self,
        name: str,
        kind: str,
        x: str,
        *,
        kernel_size: int | Pair,
        stride: int | Pair,
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> str:
        """``avg_pool`` or ``max_pool`` over windows."""
        _, channels, height, width = self.shapes[x]
        k, s = _pair(kernel_size), _pair(stride)
        rows = (height + padding[0] + padding[2] - k[0]) // s[0] + 1
        columns = (width + padding[1] + padding[3] - k[1]) // s[1] + 1
        op = Op(name, kind, (x,), stride=s, padding=padding, kernel_size=k)
        return self.append(op, (1, channels, rows, columns))

    def global_avg_pool(self, name: str, x: str) -> str:
        """(1, C, H, W) -> (1, C, 1, 1)."""
        return self.append(Op(name, "global_avg_pool", (x,)), (1, self.shapes[x][1], 1, 1))

    def flatten(self, name: str, x: str) -> str:
        """(1, …) -> (1, all)."""
        return self.append(Op(name, "flatten", (x,)), (1, math.prod(self.shapes[x])))

    def append(self, op: Op, shape: Shape) -> str:
        """Any operation, with the shape of what it makes."""
        if op.name in self.shapes:
            raise InputError(f"operation names must differ, got {op.name!r} twice")
        if shape and min(shape) < 1:
            raise InputError(f"{op.name}: every side of the output must be at least 1, got {shape}")
        self._ops.append(op)
        self.shapes[op.name] = shape
        return op.name

    def build(self, output: str | None = None) -> Workload:
        """The finished workload; its output is the last tensor unless named."""
        last = self._ops[-1].name if self._ops else self._input
        return Workload(self._input, output or last, tuple(self._ops), self.shapes, further_inputs=tuple(self._further))


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else value
