"""Fusion rules of ONNX Runtime in int8, as seen in the graphs that version 1.32 saves on x86."""

from __future__ import annotations

import math
from functools import lru_cache

from hw_profiles.network.quantization import ABSORBED
from hw_profiles.network.workload import VIEWS, WEIGHTED, Op, Workload
from hw_profiles.runtimes.kernels import Fuser, Kernel, onnx_name

_INTEGER_KINDS = ("conv", "linear", "matmul", "add", "mul", "global_avg_pool", "avg_pool", "concat")
_WITH_RELU = (*WEIGHTED, "add")
_INTEGER_FUNCTIONS = ("sigmoid", "leaky_relu", "softmax")
CHANNELS_LAST = ("conv", "add", "mul", "global_avg_pool", "avg_pool", "max_pool", "activation")
_MOVES = ("slice", "pad", "transpose", "resize", "gather", "expand")
# What is left of a function that is computed in float: a ReLU is the saturation when it is quantized again.
_IN_FLOAT: dict[str, tuple[str, ...]] = {
    "hard_swish": ("HardSigmoid", "Mul"), "silu": ("DequantizeLinear", "Sigmoid", "Mul"), "relu": (), "relu6": ()
}  # fmt: skip


class IntegerFuser(Fuser):
    """ONNX Runtime with QuantizeLinear and DequantizeLinear around 8-bit tensors."""

    def __init__(self, workload: Workload, entry: str = "") -> None:
        super().__init__(workload)
        self.begins = not entry
        self.last = {workload.input} if entry == "last" else set()  # tensors with the channels last
        self.copies: set[str] = set()
        self.leading: frozenset[str] | None = None  # tensors that lead to a convolution, None where all are taken to
        self.stands: dict[str, str] = {}  # tensors that another one stands in for

    def run(self, *, ends: bool = True) -> tuple[Kernel, ...]:
        """All kernels in order: where the network begins its inputs are quantized, and its output is float again."""
        workload = self.workload
        if self.begins:
            for name in workload.inputs:
                self.convert("quantize", (name, name), "plain", ("QuantizeLinear",), workload.tensor_bytes(name))
        for op in workload.ops:
            if op.name not in self.taken:
                self.add(op)
        if not ends:
            return tuple(self.kernels)
        for name in self.outputs:
            output, size = self.plain(name), 4 * math.prod(workload.shapes[name])
            self.convert("dequantize", (output, output), "plain", ("DequantizeLinear",), size)
        return tuple(self.kernels)

    def exit(self) -> str:
        """The layout of the output."""
        return "last" if self.workload.output in self.last else "plain"

    def add(self, op: Op) -> None:
        """The kernel of an operation and of the ReLU that it takes up, and the copies that it needs."""
        if op.kind in VIEWS:
            source = op.inputs[0]
            if source in self.last:
                self.plain(source)
            if source in self.taken:
                nodes = ("DequantizeLinear", "QuantizeLinear")
                self.convert("requantize", (source, op.name), "plain", nodes, self.workload.tensor_bytes(op.name))
            return
        group = [op]
        after = self.only_reader(op.name)
        if op.kind in _WITH_RELU and after is not None and after.function in ABSORBED:
            self.take(group, after)
        if self._stays_last(op):
            inputs = [self._last(name) for name in op.inputs]
            self.last.add(group[-1].name)
        else:
            inputs = [self.plain(name) for name in op.inputs]
        layout = "last" if group[-1].name in self.last else "plain"
        self.emit(group, inputs, layout, _nodes(op.kind, op.function), self.workload.tensor_bytes(group[-1].name))

    def _stays_last(self, op: Op) -> bool:
        if op.kind == "conv":
            return True
        if op.kind not in CHANNELS_LAST:
            return False
        if self.leading is None and self.last.issuperset(op.inputs):
            return True
        # ONNX Runtime puts a copy behind an operation rather than before it where tensors of fewer sides are copied.
        # What leads to a convolution costs nothing, as it would be copied back there.
        saved = sum(self._sides(name) if name in self.last else -self._sides(name) for name in op.inputs)
        if self.leading is not None and op.name not in self.leading:
            saved -= self._sides(op.name)
        return saved > 0

    def _sides(self, name: str) -> int:
        """Sides that are not 1; the batch may be any."""
        return 1 + sum([side > 1 for side in self.workload.shapes[name][1:]])

    def plain(self, name: str) -> str:
        """The name of a tensor with the channels first."""
        return self._copied(name, "plain") if name in self.last else self.stands.get(name, name)

    def _last(self, name: str) -> str:
        if name in self.last or len(self.workload.shapes[name]) != 4:
            return self.stands.get(name, name)
        return self._copied(name, "last")

    def _copied(self, name: str, layout: str) -> str:
        copy = f"{name}@{layout}"
        if copy not in self.copies:
            self.copies.add(copy)
            source = self.stands.get(name, name)
            self.convert("reorder", (source, copy), layout, ("Transpose",), self.workload.tensor_bytes(name))
        return copy


@lru_cache(maxsize=256)
def _nodes(kind: str, function: str) -> tuple[str, ...]:
    if kind == "max_pool":
        return ("NhwcMaxPool",)
    name = onnx_name(kind, function)
    if kind in _INTEGER_KINDS:
        return ("QGemm" if kind == "linear" else f"QLinear{name}",)
    if kind == "activation" and function in _INTEGER_FUNCTIONS:
        return (f"QLinear{name}",)
    if kind in _MOVES:
        return (name,)
    return ("DequantizeLinear", *_IN_FLOAT.get(function, (name,)), "QuantizeLinear")
