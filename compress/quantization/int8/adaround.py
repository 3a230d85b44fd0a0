"""AdaRound: whether each weight is rounded up or down, learned layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.data.network_inputs import Inputs
from compress.progress import Report, no_report
from compress.quantization.int8.layer_examples import layer_examples
from compress.quantization.int8.stepwise_run import Lockstep, constants_of
from compress.quantization.simulator.integer_ops import function_of
from hw_profiles.network.graph import Graph, Weights
from hw_profiles.network.quantization import LARGEST_WEIGHT, Quantization
from hw_profiles.network.workload import Op
from hw_profiles.onnx_io.writer import write_graph

_ROWS = 4096  # output positions that a layer learns from
_BATCH = 256
_FREE_SHARE = 0.2  # of the iterations, in which nothing draws the roundings to 0 and 1
_SHARPEST, _SOFTEST = 2.0, 20.0
_PULL = 0.02
_RATE = 0.02
_STRETCH = 1.2


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """What one layer reads and should make: ``patches`` (rows, groups, in / groups × kernel) of the quantized network's
    activations, ``wanted`` (rows, groups, out / groups) of the float network, both at the same places.
    """

    patches: Tensor
    wanted: Tensor


def rounded_weights(
    graph: Graph,
    quantization: Quantization,
    images: Inputs,
    *,
    iterations: int = 300,
    seed: int = 0,
    report: Report = no_report,
) -> dict[str, NDArray[np.float32]]:
    """Weights on the grid of their scales, each rounded up or down as suits the layer's output.

    AdaRound (2004.10568), asymmetric: layer by layer, the squared error of the output behind the activation between the
    float network and the layer on what the quantized network before it makes of the inputs in ONNX Runtime. A layer
    keeps the nearest integers where learning finds no better ones. A weight that several operations read is rounded as
    suits the first of them.
    """
    workload, changed = graph.workload, dict(graph.weights)
    ops = [op for op in workload.ops if op.kind in ("conv", "linear") and op.name not in quantization.in_float]
    ops = list({op.weight: op for op in reversed(ops)}.values())[::-1]
    consumers = workload.consumers()
    steps = Lockstep(workload, write_graph(graph), write_graph(graph, quantization), images)
    for i, op in enumerate(ops):
        report(i / len(ops), "rounding")
        steps.reach(op)
        tensors = steps.rounded.advance(f"{op.inputs[0]}.quantized"), steps.exact.advance(op.name)
        rows = layer_examples(op, tensors, quantization.activations[op.inputs[0]], _ROWS, seed)
        examples = Examples(*map(torch.from_numpy, rows))
        after = consumers[op.name]
        function = after[0].function if len(after) == 1 and after[0].kind == "activation" else "none"
        changed[op.weight] = _round_layer(op, changed, quantization, examples, (function, iterations, seed))
        steps.rounded.change(constants_of(graph.with_weights(changed), quantization, op))
    return changed


def _round_layer(
    op: Op, weights: Weights, quantization: Quantization, examples: Examples, how: tuple[str, int, int]
) -> NDArray[np.float32]:
    function, iterations, seed = how
    weight = torch.from_numpy(weights[op.weight])
    scale = torch.from_numpy(np.array(quantization.scales_of(op.weight, weights[op.weight]))).reshape(
        -1, *[1] * (weight.ndim - 1)
    )
    bias = torch.from_numpy(weights[op.bias_name]) if op.bias else torch.zeros(op.out_channels)
    layer = _Layer(op.groups, bias, function_of(function), examples)
    nearest = (weight / scale).round().clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT) * scale
    learnt = _learn(weight, scale, layer, iterations, seed)
    best = learnt if layer.error(learnt) < layer.error(nearest) else nearest
    array: NDArray[np.float32] = best.numpy().astype(np.float32)
    return array


@dataclass(frozen=True, slots=True)
class _Layer:
    groups: int
    bias: Tensor
    function: object
    examples: Examples

    def error(self, weight: Tensor, rows: Tensor | None = None) -> Tensor:
        """The mean over rows of the squared error behind the activation, summed over channels."""
        assert callable(self.function)
        patches = self.examples.patches if rows is None else self.examples.patches[rows]
        wanted = self.examples.wanted if rows is None else self.examples.wanted[rows]
        blocks = weight.reshape(self.groups, len(weight) // self.groups, -1)
        made = torch.einsum("rgk,gok->rgo", patches, blocks) + self.bias.reshape(self.groups, -1)
        error: Tensor = (self.function(made) - self.function(wanted)).square().sum((1, 2)).mean()
        return error


def _learn(weight: Tensor, scale: Tensor, layer: _Layer, iterations: int, seed: int) -> Tensor:
    """Rounding down plus a share in 0..1 of each weight, drawn to its ends; the final one is 0 or 1."""
    steps = weight / scale
    down = steps.floor()
    start = ((steps - down + (_STRETCH - 1) / 2) / _STRETCH).clamp(1e-4, 1 - 1e-4)
    share = start.logit().requires_grad_()
    optimizer = torch.optim.Adam([share], lr=_RATE)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        unit = layer.error((steps.round().clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT)) * scale).clamp_min(1e-12)
    count = len(layer.examples.patches)
    for i in range(iterations):
        up = (share.sigmoid() * _STRETCH - (_STRETCH - 1) / 2).clamp(0, 1)
        rows = torch.randint(0, count, (min(_BATCH, count),), generator=generator)
        loss = layer.error((down + up).clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT) * scale, rows) / unit
        done = (i / iterations - _FREE_SHARE) / (1 - _FREE_SHARE)
        if done >= 0:
            sharpness = _SHARPEST + (_SOFTEST - _SHARPEST) * (1 - done)
            loss = loss + _PULL * (1 - (2 * up - 1).abs().pow(sharpness)).sum() / len(weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return (down + (share.detach() > 0)).clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT) * scale
