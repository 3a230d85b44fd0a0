"""Simulates the exported int8 file in PyTorch, so that candidates are scored by the integers that will run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.networks.artifact import Artifact
from compress.networks.onnx_export import folded_weights
from compress.quantization.simulator.float_ops import computed, largest, means, weighted_sums
from compress.quantization.simulator.integer_ops import (
    Grid,
    added,
    along_channels,
    applied,
    function_of,
    multiplied,
    quantized,
    requantized,
    rounded,
    rounded_with_zero,
    scaled,
)  # fmt: skip
from compress.quantization.simulator.onnx_nodes import Run, function_of_nodes
from hw_profiles.errors import InputError
from hw_profiles.network.graph import KeptNodes
from hw_profiles.network.quantization import (
    LARGEST_BIAS,
    Quantization,
    quantized_tensors,
    quantized_weight,
    with_gates,
)
from hw_profiles.network.workload import WEIGHTED, Op, Shape, Workload

_EXACT = 2**24  # whole numbers below it are float32 numbers
_NONE: Mapping[str, KeptNodes] = MappingProxyType({})
_RESHAPES = ("Reshape", "Flatten")  # say all sides, those for one image where the file is made for one
_BATCH = 32  # at once: what lies between two operations stays in the cache


@dataclass(frozen=True, slots=True)
class Step:
    """An operation and, where the saturation absorbs one, the ReLU behind it. ``output`` is the tensor that comes out,
    ``last`` are those that nothing reads any more. ``nodes`` computes an operation of which only the nodes are known.
    """

    op: Op
    output: str
    function: str
    last: tuple[str, ...]
    nodes: Run | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """Integer weights and bias, and the float32 number of each output channel that its sums are multiplied by; without
    a ``multiplier`` those of an operation in float.
    """

    weight: Tensor
    bias: Tensor | None
    multiplier: Tensor | None


class Numbers(Protocol):
    """What a network in integers has besides its operations."""

    in_float: frozenset[str]
    """The operations that are computed in float."""

    def holds(self, name: str) -> bool:
        """Whether a tensor is held as integers; the others stay float."""

    def grid(self, name: str) -> Grid:
        """How it is held; two tensors that are held in the same way have the same object."""

    def operands(self, step: Step) -> Operands:
        """The weights of an operation."""


def simulated(artifact: Artifact) -> nn.Module:
    """A module that computes what the artifact's int8 file computes in ONNX Runtime, all optimizations on.

    (N, C, H, W) normalized images -> (N, num_classes) logits. Sums are exact, each is multiplied once in float32,
    rounded half to even and saturated; additions, products and means are rounded as the kernels for x86 with VNNI do.

    Raises:
        InputError: the artifact is of no Arch, has no scales, or an operation that no integer arithmetic is known for.

    >>> from compress import Preprocessing
    >>> from hw_profiles.network.quantization import fixed_quantization
    >>> from search_spaces import build_model, preset
    >>> arch = preset("resnet8")
    >>> names = tuple("0123456789")
    >>> record = Preprocessing(channels=3, sizes=((32, 32),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=names)
    >>> artifact = Artifact(source=arch, weights=build_model(arch).state_dict(), preprocessing=record,
    ...                     quantization=fixed_quantization(arch.workload()))
    >>> simulated(artifact)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if artifact.quantization is None:
        raise InputError("simulated: the artifact must have scales, got one in float32; quantize it first")
    workload = artifact.arch.workload()
    return Simulated(workload, folded_weights(artifact.model(), workload), artifact.quantization)


class Simulated(nn.Module):
    """A workload in the integers that ``weights``, batch normalization folded, and scales stand for."""

    def __init__(
        self, workload: Workload, weights: Mapping[str, NDArray[np.float32]], quantization: Quantization
    ) -> None:
        super().__init__()
        self.workload = with_gates(workload, quantization)
        self.steps = steps(self.workload)
        self.numbers = _Fixed(self.steps, weights, quantization)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of normalized images."""
        parts = [run_integers(self.workload, self.steps, self.numbers, part) for part in torch.split(x, _BATCH)]
        return torch.cat(parts)


def steps(workload: Workload, nodes: Mapping[str, KeptNodes] = _NONE) -> tuple[Step, ...]:
    """The operations as an int8 runtime groups them; ``nodes`` are those of operations that are no others.

    Raises:
        InputError: no arithmetic is known for one.
    """
    kept = set(quantized_tensors(workload))
    consumers = workload.consumers()
    found: list[tuple[Op, str, str]] = []
    for op in workload.ops:
        if op.name not in nodes:
            _check_known(op)
        if op.name in kept and (op.kind != "activation" or op.inputs[0] in kept):
            found.append((op, op.name, "none"))
        elif op.name not in kept:
            found.append((op, consumers[op.name][0].name, consumers[op.name][0].function))
    last = {name: i for i, (op, _, _) in enumerate(found) for name in op.inputs if name != workload.output}
    return tuple(
        Step(
            op, output, function, tuple(name for name in op.inputs if last.get(name) == i), _run_of(op, workload, nodes)
        )
        for i, (op, output, function) in enumerate(found)
    )


def _check_known(op: Op) -> None:
    if op.kind == "activation":
        function_of(op.function)
    elif op.kind not in _RUN:
        raise InputError(f"{op.name}: no integer arithmetic is known for {op.kind} (valid: {', '.join(_RUN)})")


def _run_of(op: Op, workload: Workload, nodes: Mapping[str, KeptNodes]) -> Run | None:
    if op.name not in nodes:
        return None
    *first, last = nodes[op.name].nodes
    if last.op_type not in _RESHAPES:
        return function_of_nodes(nodes[op.name], op.inputs, op.name)
    before = function_of_nodes(KeptNodes(tuple(first), nodes[op.name].constants), op.inputs, last.input[0])
    return _viewed(before, workload.shapes[op.inputs[0]], workload.shapes[op.name])


def _viewed(before: Run, read: Shape, made: Shape) -> Run:
    """With other sides; those for one image say how many of the first axis each image takes."""

    def run(values: list[Tensor]) -> Tensor:
        images = values[0].shape[0] // read[0]
        return before(values).reshape(images * made[0], *made[1:])

    return run


def run_integers(workload: Workload, order: tuple[Step, ...], numbers: Numbers, x: Tensor) -> Tensor:
    """The float output of a batch of float images."""
    images = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    source = workload.input
    values = {source: quantized(images, numbers.grid(source)) if numbers.holds(source) else images}
    for step in order:
        values[step.output] = run_step(step, [values[name] for name in step.op.inputs], numbers)
        for name in set(step.last):
            del values[name]
    return _as_float(values[workload.output], workload.output, numbers)


def run_step(step: Step, inputs: list[Tensor], numbers: Numbers) -> Tensor:
    """What one step makes of its inputs, integers less their zero points where they are held so."""
    if step.op.name in numbers.in_float:
        return _in_float(step, inputs, numbers)
    return _moved(step, inputs, numbers) if step.nodes else _RUN[step.op.kind](step, inputs, numbers)


class _Fixed:
    """The integers that the file holds."""

    def __init__(
        self, order: tuple[Step, ...], weights: Mapping[str, NDArray[np.float32]], quantization: Quantization
    ) -> None:
        shared: dict[tuple[float, int], Grid] = {}
        for pair in quantization.activations.values():
            shared[pair] = Grid.of(torch.tensor(pair[0], dtype=torch.float32), pair[1], signed=quantization.signed)
        self._grids = {name: shared[pair] for name, pair in quantization.activations.items()}
        self.in_float = quantization.in_float
        self._operands = {
            step.op.name: self._stored(step, weights, quantization) for step in order if step.op.kind in WEIGHTED
        }

    def holds(self, name: str) -> bool:
        return name in self._grids

    def grid(self, name: str) -> Grid:
        return self._grids[name]

    def operands(self, step: Step) -> Operands:
        return self._operands[step.op.name]

    def _stored(self, step: Step, weights: Mapping[str, NDArray[np.float32]], quantization: Quantization) -> Operands:
        op = step.op
        weight, bias = weights[op.weight], weights[op.bias_name] if op.bias else None
        if op.name in quantization.in_float:
            return Operands(torch.from_numpy(weight), None if bias is None else torch.from_numpy(bias), None)
        scales = np.broadcast_to(quantization.scales_of(op.weight, weight), (op.out_channels,))
        read = self._grids[op.inputs[0]]
        products = torch.from_numpy(scales.copy()) * read.scale
        integers = torch.from_numpy(quantized_weight(weight, scales)).float()
        whole = torch.zeros(op.out_channels, dtype=torch.float64)
        if bias is not None:
            whole = (torch.from_numpy(bias).double() / products.double()).round().clamp(-LARGEST_BIAS, LARGEST_BIAS)
        kind = torch.float32 if _exact(integers, whole, read) else torch.float64
        return Operands(_channels_last(integers.to(kind)), whole.to(kind), products / self._grids[step.output].scale)


def _exact(weight: Tensor, bias: Tensor, read: Grid) -> bool:
    """Whether no sum can reach what float32 does not hold; one whose weights are all 0 is the bias alone."""
    magnitudes = weight.flatten(1).abs().sum(1).double() * read.largest
    return bool(((magnitudes + bias.abs() < _EXACT) | (magnitudes == 0)).all())


def _channels_last(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last) if weight.ndim == 4 else weight


def _as_float(x: Tensor, name: str, numbers: Numbers) -> Tensor:
    return x * numbers.grid(name).scale if numbers.holds(name) else x


def _in_float(step: Step, inputs: list[Tensor], numbers: Numbers) -> Tensor:
    """In float, and then as integers where the tensor is held so."""
    op = step.op
    floats = [_as_float(x, name, numbers) for x, name in zip(inputs, op.inputs, strict=True)]
    operands = numbers.operands(step) if op.kind in WEIGHTED else None
    weights = () if operands is None else (operands.weight, operands.bias)
    output = function_of(step.function)(step.nodes(floats) if step.nodes else computed(op, floats, *weights))
    return quantized(output, numbers.grid(step.output)) if numbers.holds(step.output) else output


def _weighted(step: Step, inputs: list[Tensor], numbers: Numbers) -> Tensor:
    operands = numbers.operands(step)
    assert operands.multiplier is not None
    sums = weighted_sums(step.op, inputs[0].to(operands.weight.dtype), operands.weight, operands.bias)
    multiplier = along_channels(operands.multiplier, sums, last=step.op.kind == "linear")
    return scaled(sums, multiplier, numbers.grid(step.output).within(step.function))


def _product(step: Step, inputs: list[Tensor], numbers: Numbers) -> Tensor:
    a, b = (numbers.grid(name) for name in step.op.inputs)
    to = numbers.grid(step.output)
    return scaled(inputs[0] @ inputs[1], a.scale * b.scale / to.scale, to)


def _activation(step: Step, inputs: list[Tensor], numbers: Numbers) -> Tensor:
    op = step.op
    return applied(op.function, inputs[0], numbers.grid(op.inputs[0]), numbers.grid(op.name))


def _binary(step: Step, inputs: list[Tensor], numbers: Numbers) -> Tensor:
    a, b = (numbers.grid(name) for name in step.op.inputs)
    compute = added if step.op.kind == "add" else multiplied
    return compute(inputs[0], inputs[1], (a, b), numbers.grid(step.output).within(step.function))


def _mean(step: Step, inputs: list[Tensor], numbers: Numbers) -> Tensor:
    (x,), before, to = inputs, numbers.grid(step.op.inputs[0]), numbers.grid(step.output)
    sides = tuple(range(2, x.ndim))
    pixels = float(math.prod(x.shape[2:]))
    return rounded(x.sum(sides, keepdim=True) * (before.scale / (to.scale * pixels)), to.low, to.high)


def _max_pool(step: Step, inputs: list[Tensor], numbers: Numbers) -> Tensor:
    before = numbers.grid(step.op.inputs[0])
    return requantized(largest(step.op, inputs[0], before.low), before, numbers.grid(step.output))


def _avg_pool(step: Step, inputs: list[Tensor], numbers: Numbers) -> Tensor:
    before, to = numbers.grid(step.op.inputs[0]), numbers.grid(step.output)
    return rounded_with_zero(means(step.op, inputs[0] * before.scale) / to.scale, to)


def _concat(step: Step, inputs: list[Tensor], numbers: Numbers) -> Tensor:
    to, grids = numbers.grid(step.output), map(numbers.grid, step.op.inputs)
    return torch.cat([requantized(x, grid, to) for x, grid in zip(inputs, grids, strict=True)], 1)


def _flatten(step: Step, inputs: list[Tensor], numbers: Numbers) -> Tensor:
    return requantized(inputs[0].flatten(1), numbers.grid(step.op.inputs[0]), numbers.grid(step.output))


def _moved(step: Step, inputs: list[Tensor], numbers: Numbers) -> Tensor:
    """Nodes that only move numbers, which they do with integers as well."""
    assert step.nodes is not None
    return requantized(step.nodes(inputs), numbers.grid(step.op.inputs[0]), numbers.grid(step.output))


_RUN: Mapping[str, Callable[[Step, list[Tensor], Numbers], Tensor]] = {
    "conv": _weighted,
    "linear": _weighted,
    "activation": _activation,
    "matmul": _product,
    "add": _binary,
    "mul": _binary,
    "global_avg_pool": _mean,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "concat": _concat,
    "flatten": _flatten,
}
