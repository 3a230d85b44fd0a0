"""A Kernel: operations that a runtime runs as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hw_profiles.network.activations import activation
from hw_profiles.network.workload import Op, Workload

POOLS = ("global_avg_pool", "avg_pool", "max_pool")


@dataclass(slots=True, unsafe_hash=True)  # frozen ones take four times as long to make
class Kernel:
    """Operations that run as one.

    ``kind``: conv, pointwise, depthwise, grouped, conv_transpose, linear, matmul, add, mul, pool, activation, …;
    quantize, dequantize, requantize and reorder have no operation. ``layout``: plain (channels first), blocked
    (channels in blocks), first (a convolution that reads plain and writes blocks), last (channels last), any (not
    modeled). ``nodes`` are the runtime's own names of what it runs, ``output_bytes`` what it writes, padding of blocks
    included. A tensor ``name`` that was copied into another layout is called ``name@layout``.
    """

    kind: Final[str]
    ops: Final[tuple[Op, ...]]
    inputs: Final[tuple[str, ...]]
    output: Final[str]
    macs: Final[int]
    weight_bytes: Final[int]
    layout: Final[str]
    nodes: Final[tuple[str, ...]]
    output_bytes: Final[int]


class Fuser:
    """What the runtimes share: who reads what, what an earlier kernel took up, and the kernels so far."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.consumers = workload.consumers()
        self.outputs = workload.outputs
        self.kernels: list[Kernel] = []
        self.taken: set[str] = set()

    def only_reader(self, name: str) -> Op | None:
        """The operation that alone reads a tensor, unless that tensor is an output."""
        consumers = self.consumers[name]
        return consumers[0] if len(consumers) == 1 and name not in self.outputs else None

    def take(self, group: list[Op], after: Op) -> None:
        """Let the kernel of ``group`` run ``after`` as well."""
        group.append(after)
        self.taken.add(after.name)

    def emit(self, group: Sequence[Op], inputs: Sequence[str], layout: str, nodes: tuple[str, ...], size: int) -> None:
        """Append the kernel of some operations."""
        macs = weight_bytes = 0
        for op in group:
            macs += self.workload.op_macs(op)
            if op.stores_weights:
                weight_bytes += self._held_bytes(op)
                weight_bytes += 4 * op.out_channels if op.bias else 0
        output = group[-1].name
        self.kernels.append(
            Kernel(kernel_kind(group[0]), tuple(group), tuple(inputs), output, macs, weight_bytes, layout, nodes, size)
        )

    def _held_bytes(self, op: Op) -> int:
        """Bytes of a weight in memory: fewer bits than those that are computed with are widened when it is loaded."""
        stored, count = self.workload.format(op.weight), math.prod(op.weight_shape)
        if stored.bits in (8, 32):
            return stored.bytes(count)
        return count * max(stored.bits, self.workload.format(op.name).bits) // 8

    def convert(self, kind: str, names: tuple[str, str], layout: str, nodes: tuple[str, ...], size: int) -> None:
        """Append a kernel that only writes one tensor (the first of ``names``) as another."""
        self.kernels.append(Kernel(kind, (), (names[0],), names[1], 0, 0, layout, nodes, size))


def kernel_kind(op: Op) -> str:
    """What an operation is to a runtime: of convolutions conv, pointwise, depthwise or grouped."""
    if op.kind != "conv":
        return "pool" if op.kind in POOLS else op.kind
    if op.depthwise:
        return "depthwise"
    if op.groups > 1:
        return "grouped"
    return "pointwise" if math.prod(op.kernel_size) == 1 else "conv"


def onnx_name(kind: str, function: str) -> str:
    """What ONNX calls operations of a kind and function."""
    if kind == "activation":
        return activation(function).node
    return _KINDS.get(kind, function if kind == "other" else kind)


_KINDS = {
    "conv": "Conv", "linear": "Gemm", "matmul": "MatMul", "add": "Add", "mul": "Mul", "concat": "Concat",
    "global_avg_pool": "GlobalAveragePool", "avg_pool": "AveragePool", "max_pool": "MaxPool",
}  # fmt: skip
