"""Bias correction: removes the mean error that rounding causes in each channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compress.data.network_inputs import Inputs
from compress.data.preprocessing import Preprocessing
from compress.networks.network_graph import inputs_of
from compress.progress import Report, no_report
from compress.quantization.int8.activation_stats import Floats
from compress.quantization.int8.stepwise_run import Lockstep, constants_of
from compress.stage_interface import Context
from hw_profiles.network.graph import Graph, Weights
from hw_profiles.network.quantization import Quantization
from hw_profiles.network.workload import WEIGHTED, Op
from hw_profiles.onnx_io.writer import write_graph

_CORRECTION_IMAGES = 256


def corrected_biases(
    graph: Graph,
    quantization: Quantization | None,
    images: Inputs,
    report: Report = no_report,
    *,
    exact: Weights | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Weights whose biases are changed so that the mean output of every channel is that of the float network; its
    weights are the ``exact`` ones where the others were rounded already.

    Empirical bias correction (section 4.2 of 1906.04721): layer by layer from the input on, each seeing what the
    corrected layers before it make of the inputs in ONNX Runtime; the output is taken before any
    activation.
    """
    workload, changed = graph.workload, dict(graph.weights)
    in_float = quantization.in_float if quantization else frozenset()
    ops = [op for op in workload.ops if op.kind in WEIGHTED and op.bias and op.name not in in_float]
    if not ops:
        return changed
    before = write_graph(graph.with_weights(exact or changed))
    steps = Lockstep(workload, before, write_graph(graph, quantization), images)
    for i, op in enumerate(ops):
        report(i / len(ops), "correcting biases")
        steps.reach(op)
        name = f"{op.name}.float" if quantization and op.name == workload.output else op.name
        wanted, got = (_channel_means(op, each) for each in (steps.exact.advance(op.name), steps.rounded.advance(name)))
        shift = (wanted - got).astype(np.float32)
        changed[op.bias_name] = changed[op.bias_name] + shift
        steps.rounded.change(constants_of(graph.with_weights(changed), quantization, op))
        steps.rounded.held[name] = [part + _along_channels(op, shift, part.ndim) for part in steps.rounded.held[name]]
    return changed


def _channel_means(op: Op, x: Floats) -> NDArray[np.float64]:
    """Channels are axis 1, of a linear layer the last axis."""
    axes = tuple(range(x.ndim - 1)) if op.kind == "linear" else (0, *range(2, x.ndim))
    means: NDArray[np.float64] = x.mean(axes, dtype=np.float64)
    return means


def _along_channels(op: Op, values: Floats, ndim: int) -> Floats:
    return values if op.kind == "linear" else values.reshape(-1, *[1] * (ndim - 2))


def biases_after_rounding(
    rounded: Graph, quantization: Quantization | None, exact: Graph, preprocessing: Preprocessing, context: Context
) -> dict[str, Floats]:
    """The biases that give each channel of ``rounded`` the mean that it has in ``exact`` in float, on some images."""
    images = inputs_of(exact, preprocessing, context.data.train.some(_CORRECTION_IMAGES, context.seed))
    found = corrected_biases(rounded, quantization, images, context.report, exact=exact.weights)
    return {op.bias_name: found[op.bias_name] for op in exact.workload.ops if op.kind in WEIGHTED and op.bias}
