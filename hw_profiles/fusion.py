"""The kernels that a runtime makes of a Workload."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hw_profiles.workload import WEIGHTED, Op, Workload

RUNTIMES = ("ort",)
# Seen in the graphs that ONNX Runtime 1.32 saves after optimisation on x86.
_FUSED_AFTER_FLOAT_CONV = ("relu", "relu6", "sigmoid", "hard_sigmoid", "hard_swish")
_KEEP_LAYOUT = ("relu", "sigmoid", "silu", "hard_swish")
_FUSED_AFTER_FLOAT_SUM = ("relu",)
_ABSORBED_BY_INTEGERS = ("relu", "relu6")


@dataclass(frozen=True, slots=True)
class Kernel:
    """Operations that run as one. ``kind``: conv, pointwise, depthwise, linear, add, mul, pool, activation, quantize,
    …"""

    kind: str
    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    output: str
    macs: int
    weight_bytes: int


def fuse(workload: Workload, runtime: str = "ort") -> tuple[Kernel, ...]:
    """The workload as ONNX Runtime's CPU provider runs it, in order.

    In float32 a convolution takes up the sum that follows it, if the other summand comes in the blocked layout of a
    convolution as well, and then a ReLU; without a sum it takes up most activations. In int8 convolutions, linear
    layers and sums take up a ReLU; every other activation is computed in float between two conversions. Flattening
    costs nothing.

    >>> from search_spaces import preset
    >>> [k.kind for k in fuse(preset("resnet8").workload())].count("conv")
    7
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    integers = workload.format(workload.input).bits == 8
    groups = _fused_groups(workload, integers)
    kernels = [_kernel(workload, ops) for ops in groups if ops[0].kind != "flatten"]
    if not integers:
        return tuple(kernels)
    first = Kernel("quantize", (), (workload.input,), workload.input, 0, 0)
    last = Kernel("dequantize", (), (workload.output,), workload.output, 0, 0)
    return (first, *kernels, last)


def _fused_groups(workload: Workload, integers: bool) -> list[list[Op]]:
    readers = workload.consumers()
    taken: set[str] = set()
    blocked: set[str] = set()  # tensors that stay in the layout of the convolution that made them
    groups = []
    for op in workload.ops:
        if op.name in taken:
            continue
        group = [op]
        while (after := _only_reader(readers[group[-1].name])) is not None and _takes_up(
            group, after, integers, blocked
        ):
            group.append(after)
            taken.add(after.name)
        keeps = op.kind == "add" or op.function in _KEEP_LAYOUT
        if op.kind == "conv" or (keeps and blocked.issuperset(op.inputs)):
            blocked.add(group[-1].name)
        groups.append(group)
    return groups


def _takes_up(group: Sequence[Op], after: Op, integers: bool, blocked: set[str]) -> bool:
    kinds = [op.kind for op in group]
    if integers:
        return group[-1].kind in (*WEIGHTED, "add") and after.function in _ABSORBED_BY_INTEGERS
    if kinds[0] != "conv" or "activation" in kinds:
        return False
    if "add" in kinds:
        return after.function in _FUSED_AFTER_FLOAT_SUM
    if after.kind == "add":
        # The other summand must be there already, as a convolution left it.
        return all(name in blocked for name in after.inputs if name != group[-1].name)
    return after.function in _FUSED_AFTER_FLOAT_CONV


def _only_reader(readers: Sequence[Op]) -> Op | None:
    return readers[0] if len(readers) == 1 else None


def _kernel(workload: Workload, ops: list[Op]) -> Kernel:
    inside = {op.name for op in ops}
    inputs = tuple(dict.fromkeys(x for op in ops for x in op.inputs if x not in inside))
    weights = [name for op in ops if op.kind in WEIGHTED for name in (op.weight, op.bias_name)]
    shapes = workload.weights()
    weight_bytes = sum(workload.format(w).bytes(math.prod(shapes[w])) for w in weights if w in shapes)
    return Kernel(
        _kind(ops[0]), tuple(ops), inputs, ops[-1].name, sum(workload.op_macs(op) for op in ops), weight_bytes
    )


def _kind(op: Op) -> str:
    if op.kind == "conv":
        if op.depthwise:
            return "depthwise"
        return "pointwise" if op.kernel_size == (1, 1) else "conv"
    return "pool" if op.kind.endswith("_pool") else op.kind
