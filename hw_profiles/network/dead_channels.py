"""Channels that change nothing of what a network computes, and the network without them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hw_profiles.network.activations import activation
from hw_profiles.network.workload import VIEWS, Op, Shape, Workload

_NEGLIGIBLE = 1e-6  # of the largest weight of an operation: rounding removes it
_POOLS = ("avg_pool", "max_pool", "global_avg_pool")

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredWeights:
    """Weights and biases by the workload's names as float numbers, as far as they are known, and the lowest and highest
    number that a tensor can hold, where it is stored in integers.
    """

    arrays: Mapping[str, NDArray[np.float32]]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def without_dead_channels(workload: Workload, weights: StoredWeights) -> Workload:
    """The operations that remain if every channel is left out that is the same number for each input, or that nothing
    reads: the number becomes part of the bias of what reads it. Half of the multiplications of MLPerf Tiny's network
    for visual wake words are of such channels, and some runtimes leave them out.

    A channel is kept where its weights are not known, where an operation reads it that is not a convolution, linear
    layer, sum, product, pooling or activation, and where it is not zero and a convolution surrounds it with zeros. The
    workload itself is returned where every channel counts.

    >>> from hw_profiles.network.workload import WorkloadBuilder
    >>> builder = WorkloadBuilder("input", (1, 3, 8, 8))
    >>> x = builder.conv("first", "input", 4, kernel_size=3)
    >>> _ = builder.conv("second", x, 8, kernel_size=1)
    >>> workload = builder.build()
    >>> arrays = {name: np.ones(shape, np.float32) for name, shape in workload.weights().items()}
    >>> arrays["second.weight"][:, :3] = 0
    >>> without_dead_channels(workload, StoredWeights(arrays=arrays)).ops[0].weight_shape  # one of four is read
    (1, 3, 3, 3)
    """
    channels = _Channels(workload, weights)
    channels.find_constants()
    channels.find_readers()
    kept = {name: _at_least_one(channels.kept(name)) for name in workload.shapes}
    if all(flags.all() for flags in kept.values()):
        return workload
    shapes = {name: _shrunk(shape, kept[name]) for name, shape in workload.shapes.items()}
    ops = tuple(_smaller(op, workload, kept) for op in workload.ops)
    return replace(workload, ops=ops, shapes=shapes)


class _Channels:
    """Of each tensor the number that a channel always is, or nan, and whether anything reads it."""

    def __init__(self, workload: Workload, weights: StoredWeights) -> None:
        self.workload, self.weights = workload, weights
        self.consumers = workload.consumers()
        self.constants = {name: np.full(_channels(workload.shapes[name]), math.nan) for name in workload.inputs}
        self.read: dict[str, Flags] = {
            name: np.zeros(_channels(shape), bool) for name, shape in workload.shapes.items()
        }
        self.whole = {*workload.outputs, *workload.inputs}
        self.unknown: set[str] = set()  # operations of which nothing is known

    def kept(self, name: str) -> Flags:
        """The channels of a tensor that are computed."""
        flags: Flags = self.read[name] & np.isnan(self.constants[name])
        return np.ones_like(flags) if name in self.whole else flags

    def find_constants(self) -> None:
        """From the inputs to the output."""
        for op in self.workload.ops:
            found = self._constants(op)
            if found is None:
                self.unknown.add(op.name)
                self.whole |= {op.name, *op.inputs}
                found = np.full(_channels(self.workload.shapes[op.name]), math.nan)
            if op.name in self.weights.ranges:
                found = np.clip(found, *self.weights.ranges[op.name])
            if any(any(reader.padding) for reader in self.consumers[op.name]):
                found = np.where(found == 0, found, math.nan)
            self.constants[op.name] = found
        for name in self.whole:
            self.constants[name] = np.full_like(self.constants[name], math.nan)

    def find_readers(self) -> None:
        """From the output to the inputs."""
        for name in self.whole:
            self.read[name][:] = True
        for op in reversed(self.workload.ops):
            for name in op.inputs:
                self.read[name] |= self._reads(op, name)

    def _constants(self, op: Op) -> Floats | None:
        """What each channel always is; None where nothing is known of the operation."""
        inputs = [self.constants[name] for name in op.inputs]
        if op.kind in ("conv", "linear"):
            matrix = self._matrix(op)
            return None if matrix is None else self._weighted(op, matrix, inputs[0])
        if op.kind == "activation" and (compute := activation(op.function).compute) is not None:
            return compute(inputs[0])
        if op.kind in ("add", "mul") and len(inputs) == 2 and self._same_shapes(op):
            return inputs[0] + inputs[1] if op.kind == "add" else _product(*inputs)
        if op.kind in _POOLS:
            return inputs[0]
        if op.kind in VIEWS and self._flattens(op):
            return np.repeat(inputs[0], _channels(self.workload.shapes[op.name]) // len(inputs[0]))
        return None

    def _weighted(self, op: Op, matrix: Floats, constant: Floats) -> Floats:
        bias = self.weights.arrays.get(op.bias_name)
        if op.bias and bias is None:
            return np.full(len(matrix), math.nan)
        per_output = np.tile(constant, (len(matrix), 1)) if not op.depthwise else _of_outputs(op, constant)[:, None]
        with np.errstate(invalid="ignore"):
            summands = np.where(matrix == 0, 0.0, matrix * per_output)
        total: Floats = summands.sum(axis=1) + (bias.astype(float) if bias is not None else 0.0)
        return total

    def _matrix(self, op: Op) -> Floats | None:
        """(out, in) sums of the weights between two channels, nothing where they are negligible, of a depthwise
        convolution (out, 1). None where they are not known, or the convolution is in groups.
        """
        weight = self.weights.arrays.get(op.weight)
        one_row = math.prod(self.workload.shapes[op.inputs[0]][:2]) == math.prod(self.workload.shapes[op.inputs[0]])
        usable = op.depthwise or op.groups == 1 if op.kind == "conv" else one_row
        if weight is None or weight.shape != op.weight_shape or op.normalized or len(op.inputs) > 1 or not usable:
            return None
        strength = np.abs(weight).reshape(*weight.shape[:2], -1).max(axis=2)
        sums = weight.reshape(*weight.shape[:2], -1).sum(axis=2, dtype=float)
        used = strength > _NEGLIGIBLE * strength.max(initial=0.0)
        return np.where(used, np.where(sums == 0, np.finfo(float).tiny, sums), 0.0)

    def _reads(self, op: Op, name: str) -> Flags:
        """The channels of one of its inputs that its kept channels need."""
        everything = np.ones_like(self.read[name])
        if op.name in self.unknown:
            return everything
        kept = self.kept(op.name)
        if op.kind in ("conv", "linear"):
            matrix = self._matrix(op)
            assert matrix is not None
            used = (matrix != 0) & kept[:, None]
            if not op.depthwise:
                return np.asarray(used.any(axis=0), bool)
            return np.asarray(used[:, 0].reshape(len(everything), -1).any(axis=1), bool)
        return np.asarray(kept.reshape(len(everything), -1).any(axis=1), bool)

    def _same_shapes(self, op: Op) -> bool:
        return len({self.workload.shapes[name] for name in (*op.inputs, op.name)}) == 1

    def _flattens(self, op: Op) -> bool:
        return self.workload.shapes[op.name] == (1, math.prod(self.workload.shapes[op.inputs[0]][1:]))


def _channels(shape: Shape) -> int:
    return shape[1] if len(shape) > 1 else 1


def _of_outputs(op: Op, constant: Floats) -> Floats:
    """Of each output of a depthwise convolution the channel that it reads."""
    return np.repeat(constant, op.out_channels // len(constant))


def _product(a: Floats, b: Floats) -> Floats:
    return np.where((a == 0) | (b == 0), 0.0, a * b)


def _at_least_one(flags: Flags) -> Flags:
    """Some channel is left of each tensor."""
    if not flags.any() and flags.size:
        flags = flags.copy()
        flags[0] = True
    return flags


def _shrunk(shape: Shape, kept: Flags) -> Shape:
    return (shape[0], int(kept.sum()), *shape[2:]) if len(shape) > 1 else shape


def _smaller(op: Op, workload: Workload, kept: Mapping[str, Flags]) -> Op:
    if op.kind not in ("conv", "linear") or len(op.inputs) > 1 or (op.groups > 1 and not op.depthwise):
        return op
    if len(workload.shapes[op.name]) not in (2, 4):
        return op
    outputs = int(kept[op.name].sum())
    if op.depthwise:
        return replace(op, weight_shape=(outputs, *op.weight_shape[1:]), groups=max(outputs, 2))
    inputs = int(kept[op.inputs[0]].sum())
    return replace(op, weight_shape=(outputs, inputs, *op.weight_shape[2:]))
