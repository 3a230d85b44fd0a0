"""How many integers the weights of each layer may take, so that those lose least that most weights have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compress.data.network_inputs import Inputs
from compress.networks.weight_layers import per_layer_setting
from compress.progress import Report, no_report
from compress.quantization.int8.fidelity import FidelityEvaluator
from compress.quantization.int8.weight_scales import WeightGrid
from hw_profiles.network.graph import Graph
from hw_profiles.network.quantization import quantized_weight
from hw_profiles.network.workload import WEIGHTED, Op
from hw_profiles.onnx_io.writer import write_graph

FEWEST, MOST = 3, 255
Levels = int | Mapping[str, int]

_PROBE = 15  # levels with which each layer is tried alone
_PROBED_IMAGES = 100
_ROUNDS = 20


def levels_of(setting: Levels | None, graph: Graph, images: Inputs, report: Report = no_report) -> dict[str, int]:
    """The levels of each operation's weights: those of a mapping by its name or kind, or, with one number, as many in
    the geometric mean over all weights, see :func:`allocated_levels`."""
    if setting is None:
        return {}
    ops = [op for op in graph.workload.ops if op.stores_weights and op.kind in WEIGHTED]
    if isinstance(setting, Mapping):
        return per_layer_setting(setting, {op.name: op for op in ops}, "Quantize.levels")
    sizes = {op.name: int(np.count_nonzero(graph.weights[op.weight])) for op in ops}
    ops = [op for op in ops if sizes[op.name]]
    return allocated_levels(divergences(graph, ops, images, report), sizes, setting)


def divergences(graph: Graph, ops: Sequence[Op], images: Inputs, report: Report = no_report) -> dict[str, float]:
    """How far the network's outputs move when the weights of one operation alone take few integers, for each."""
    evaluator = FidelityEvaluator(write_graph(graph), images[:_PROBED_IMAGES])
    found = {}
    for i, op in enumerate(ops):
        report(i / len(ops), "one layer after the other")
        weight = graph.weights[op.weight]
        scales = WeightGrid(levels={op.name: _PROBE}).scales(op.name, weight, None, 1.0)
        rounded = quantized_weight(weight, scales) * scales.reshape(-1, *[1] * (weight.ndim - 1))
        found[op.name] = evaluator(write_graph(graph.with_weights({**graph.weights, op.weight: rounded}))).divergence
    return found


def allocated_levels(divergences: Mapping[str, float], sizes: Mapping[str, int], mean: int) -> dict[str, int]:
    """The levels of each layer: ``mean`` in the geometric mean over all weights, with the least divergence together.
    That of a layer is taken to fall with the square of its number of levels, as errors of rounding do.

    >>> allocated_levels({"weak": 4.0, "strong": 0.25}, {"weak": 100, "strong": 100}, 16)
    {'weak': 32, 'strong': 8}
    """
    names = list(divergences)
    size = np.array([sizes[name] for name in names], np.float64)
    slope = np.log2([max(divergences[name], 1e-12) for name in names]) - np.log2(size)
    bits = np.full(len(names), np.log2(mean))
    free = np.ones(len(names), np.bool_)
    for _ in range(_ROUNDS):  # what is cut off at the ends is made up for by the others
        spent = (size * bits)[~free].sum()
        share = (size[free] * slope[free]).sum() / size[free].sum() / 2
        bits[free] = (size.sum() * np.log2(mean) - spent) / size[free].sum() + slope[free] / 2 - share
        cut = free & ((bits < np.log2(FEWEST)) | (bits > np.log2(MOST)))
        bits = np.clip(bits, np.log2(FEWEST), np.log2(MOST))
        free &= ~cut
        if not cut.any() or not free.any():
            break
    return {name: int(value) for name, value in zip(names, np.rint(2**bits), strict=True)}
