"""Fits integer weights layer by layer, so that the quantized layers reproduce the outputs of the float network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.network_inputs import Inputs
from compress.progress import Report, no_report
from compress.quantization.int8.activation_stats import Floats
from compress.quantization.int8.layer_examples import layer_examples
from compress.quantization.int8.stepwise_run import Lockstep, constants_of
from compress.quantization.int8.weight_scales import BYTES, WeightGrid
from hw_profiles.network.graph import Graph
from hw_profiles.network.quantization import LARGEST_WEIGHT, Quantization
from hw_profiles.network.workload import Op
from hw_profiles.onnx_io.writer import write_graph

Doubles = NDArray[np.float64]

_ROWS_PER_INPUT, _LEAST_ROWS = 12, 4096
_LARGEST_EXAMPLES = 2**25  # numbers
_MOST_INPUTS = 2400  # of one output; the time grows with the cube
_DAMPING = 0.01
_SHRINKAGE = 1.0
_NOTHING = 1e-12
_BLOCK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Of what a layer reads in the quantized network, ``x`` (groups, inputs), and should make, ``y`` (groups, outputs):
    means, and the mean products about them, over so many ``rows``."""

    rows: int
    x: Doubles
    y: Doubles
    xx: Doubles
    xy: Doubles


def fitted_weights(
    graph: Graph,
    quantization: Quantization,
    images: Inputs,
    *,
    grid: WeightGrid = BYTES,
    seed: int = 0,
    report: Report = no_report,
) -> tuple[Graph, Quantization]:
    """The network with other weights, biases and scales of weights.

    Layer by layer from the input on: the weights and biases that fit the float network's output best, in the least
    squares, from what the quantized layers before make of the inputs; then these weights in integers, each
    one's error made up for by those that are rounded after it (GPTQ, 2210.17323). A weight that several operations read
    stays, and one of very many inputs; their biases are fitted. Zeros stay zeros.
    """
    state = _State(graph, quantization, images, grid, seed)
    ops = [op for op in graph.workload.ops if op.kind in ("conv", "linear") and op.name not in quantization.in_float]
    readers: dict[str, int] = {}
    for op in ops:
        readers[op.weight] = readers.get(op.weight, 0) + 1
    for i, op in enumerate(ops):
        report(i / len(ops), "fitting weights")
        state.fit(op, alone=readers[op.weight] == 1)
    return state.graph, state.quantization


class _State:
    def __init__(self, graph: Graph, quantization: Quantization, images: Inputs, grid: WeightGrid, seed: int) -> None:
        self.graph, self.quantization = graph, quantization
        self.grid, self.seed = grid, seed
        self.steps = Lockstep(graph.workload, write_graph(graph), write_graph(graph, quantization), images)
        self.exact_graph = graph

    def fit(self, op: Op, *, alone: bool) -> None:
        self.steps.reach(op)
        x = self.steps.rounded.advance(f"{op.inputs[0]}.quantized")
        y = self.steps.exact.advance(op.name)
        moments = self._moments(op, x, y)
        weights = dict(self.graph.weights)
        weight, scales = weights[op.weight], self.quantization.scales_of(op.weight, weights[op.weight])
        if alone and moments.xx.shape[1] <= _MOST_INPUTS:
            weight, scales = self._weight(op, moments)
            weights[op.weight] = weight
        if op.bias:
            on_grid = _on_grid(weight, scales)
            made = np.einsum("gok,gk->go", _grouped(op, on_grid), moments.x)
            weights[op.bias_name] = (moments.y - made).reshape(-1).astype(np.float32)
        self.graph = self.graph.with_weights(weights)
        self.quantization = replace(self.quantization, weights={**self.quantization.weights, op.weight: scales})
        self.steps.rounded.change(constants_of(self.graph, self.quantization, op))

    def _weight(self, op: Op, moments: Moments) -> tuple[Floats, Floats]:
        before = _grouped(op, self.exact_graph.weights[op.weight].astype(np.float64))
        damped = _damped(moments)
        change = np.linalg.solve(damped, moments.xy - moments.xx @ before.swapaxes(1, 2))
        best = before + change.swapaxes(1, 2)
        shape = self.exact_graph.weights[op.weight].shape
        bias = self.exact_graph.weights[op.bias_name] if op.bias else None
        input_scale = self.quantization.activations[op.inputs[0]][0]
        scales = self.grid.scales(op.name, best.reshape(shape).astype(np.float32), bias, input_scale)
        steps = np.broadcast_to(scales, shape[:1]).astype(np.float64).reshape(best.shape[:2])
        return rounded_in_turn(best, steps, damped, before == 0).reshape(shape).astype(np.float32), scales

    def _moments(self, op: Op, x: NDArray[Any], y: Floats) -> Moments:
        """From rows at random places of each image."""
        inputs = math.prod(op.weight_shape[1:])
        rows = min(max(_LEAST_ROWS, _ROWS_PER_INPUT * inputs), _LARGEST_EXAMPLES // (inputs * op.groups))
        grid = self.quantization.activations[op.inputs[0]]
        return _moments(*layer_examples(op, (x, y), grid, rows, self.seed), centered=op.bias)


def _moments(x: Floats, y: Floats, *, centered: bool) -> Moments:
    """Of rows (rows, groups, …)."""
    means = [each.mean(0, dtype=np.float64) if centered else np.zeros(each.shape[1:]) for each in (x, y)]
    x, y = (each - mean.astype(np.float32) for each, mean in zip((x, y), means, strict=True))
    x, y = x.transpose(1, 2, 0), y.transpose(1, 0, 2)
    rows = x.shape[2]
    xx, xy = ((x @ each).astype(np.float64) / rows for each in (x.swapaxes(1, 2), y))
    return Moments(rows, means[0], means[1], xx, xy)


def rounded_in_turn(weight: Doubles, steps: Doubles, xx: Doubles, zeros: NDArray[np.bool_]) -> Doubles:
    """Weights (groups, outputs, inputs) on the grid of ``steps`` (groups, outputs): inputs are rounded one after the
    other, those of the most power first, and the rest is changed so that the output stays as near as can be. What is in
    ``zeros`` becomes 0.

    >>> xx = np.array([[[1.0, 0.99], [0.99, 1.0]]])
    >>> rounded_in_turn(np.array([[[0.4, 0.4]]]), np.array([[1.0]]), xx, np.zeros((1, 1, 2), bool))
    array([[[0., 1.]]])
    """
    order = np.argsort(-np.diagonal(xx, axis1=1, axis2=2), axis=1, kind="stable")
    sorted_xx = np.take_along_axis(np.take_along_axis(xx, order[:, :, None], 1), order[:, None, :], 2)
    left: Doubles = np.take_along_axis(weight, order[:, None, :], 2)
    nothing = np.take_along_axis(zeros, order[:, None, :], 2)
    upper = np.linalg.cholesky(np.linalg.inv(sorted_xx)).swapaxes(1, 2)
    result = np.empty_like(left)
    inputs = left.shape[2]
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        errors = np.empty((*left.shape[:2], stop - start))
        for j in range(start, stop):
            integers = np.clip(np.rint(left[:, :, j] / steps), -LARGEST_WEIGHT, LARGEST_WEIGHT)
            result[:, :, j] = np.where(nothing[:, :, j], 0.0, integers * steps)
            error = (left[:, :, j] - result[:, :, j]) / upper[:, None, j, j]
            left[:, :, j + 1 : stop] -= error[:, :, None] * upper[:, None, j, j + 1 : stop]
            errors[:, :, j - start] = error
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    back = np.argsort(order, axis=1)
    found: Doubles = np.take_along_axis(result, back[:, None, :], 2)
    return found


def _damped(moments: Moments) -> Doubles:
    """The products ``xx``, more of those of an input with itself where there are few rows for so many inputs: what the
    rows say little of stays as it is."""
    xx = moments.xx
    power = np.diagonal(xx, axis1=1, axis2=2)
    least = np.maximum(_DAMPING * power.mean(1, keepdims=True), _NOTHING)
    added = _SHRINKAGE * xx.shape[1] / moments.rows * power + least
    damped: Doubles = xx + added[:, :, None] * np.eye(xx.shape[1])
    return damped


def _grouped(op: Op, weight: NDArray[Any]) -> Doubles:
    blocks: Doubles = weight.astype(np.float64).reshape(op.groups, op.out_channels // op.groups, -1)
    return blocks


def _on_grid(weight: Floats, scales: Floats) -> Floats:
    along = scales.reshape(-1, *[1] * (weight.ndim - 1)) if scales.ndim else scales
    rounded: Floats = np.clip(np.rint(weight / along), -LARGEST_WEIGHT, LARGEST_WEIGHT) * along
    return rounded
