"""A profile by layer: what each kernel computes, stores and costs on a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from hw_profiles.cost_model.features import (
    CostFeatures,
    call_features,
    in_network_of_size,
    kernel_features,
    size_coordinate,
)
from hw_profiles.devices.device import Device
from hw_profiles.latency.estimate import Latency, estimate, precision_of, precisions_of_kernels
from hw_profiles.memory.planner import plan
from hw_profiles.network.workload import InputShape, Shape, Workload
from hw_profiles.profiling import Model, workload_of, workload_on
from hw_profiles.runtimes.fusion import Kernel, fuse


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerProfile:
    """One kernel. Shapes are (1, C, H, W), those of its first input and of its output.

    - ``name``: its first operation, or what it does and to which tensor: ``reorder pool@plain``.
    - ``function``: which activation it is, or which operation that nobody here knows (kind ``other``), else ``"none"``.
    - ``ops``: the names of all its operations; ``nodes``: what the runtime calls them.
    - ``activation_bytes``: what it reads and writes; ``live_bytes``: all activations that exist while it runs.
    - ``weight_bytes``: its weights and biases with their scales.
    - ``input_bits``, ``weight_bits``: of one element; None where there are no weights.
    - ``microseconds``: estimated; ``share``: of the whole network, in 0..1.
    - ``fallback_cost``: the device has no cost for such a kernel, and the estimate takes that of another kind.
    """

    name: str
    kind: str
    function: str
    layout: str
    ops: tuple[str, ...]
    nodes: tuple[str, ...]
    input_shape: Shape
    output_shape: Shape
    macs: int
    weight_bytes: int
    activation_bytes: int
    input_bits: int
    weight_bits: int | None
    microseconds: float
    share: float
    fallback_cost: bool
    live_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Breakdown:
    """All layers in the order in which they run.

    ``call_microseconds`` is what a call costs beside them, and ``call_share`` its share; ``latency`` the estimate of
    the whole. ``peak_index`` is the layer at which most activations live. ``unknown`` counts the operations that nobody
    here knows by their names in the file.
    """

    layers: tuple[LayerProfile, ...]
    call_microseconds: float
    call_share: float
    latency: Latency
    peak_index: int
    unknown: Mapping[str, int]

    @property
    def rows(self) -> tuple[LayerProfile, ...]:
        """The layers (see :func:`nas.records`)."""
        return self.layers

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, biases and scales."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def peak(self) -> LayerProfile:
        """The layer at which most activations live."""
        return self.layers[self.peak_index]


def profile_layers(
    model: Model, device: Device, precision: str | None = None, *, input_shape: InputShape = None
) -> Breakdown:
    """Estimate the cost of each layer of a network on a device, with the memory that is in use while it runs.

    ``model`` and ``input_shape`` are those of :func:`hw_profiles.profile`. ``precision`` is ``"fp32"`` or ``"int8"``;
    by default that of the model, which is float32 for everything but an int8 file.

    Raises:
        InputError: not a model, an unknown precision, or a device without costs for it.

    >>> from hw_profiles import load_device
    >>> from search_spaces import preset
    >>> found = profile_layers(preset("resnet8"), load_device("host"), "int8")
    >>> found.macs, found.peak.name, found.peak.live_bytes
    (12501632, 'stages.0.0.conv2', 49152)
    """
    workload = workload_on(device, model, workload_of(model, input_shape), input_shape)
    if precision is not None:
        workload = workload.with_precision(precision)
    kernels = fuse(workload, device.runtime)
    schedule = plan(workload, kernels, device.runtime)
    precisions = precisions_of_kernels(workload, schedule.kernels)
    nodes = sum(len(kernel.nodes) for kernel in kernels)
    all_features = [
        in_network_of_size(kernel_features(workload, kernel), size_coordinate(nodes)) for kernel in schedule.kernels
    ]
    costs = [device.table(each).total(wanted)[0] for each, wanted in zip(precisions, all_features, strict=True)]
    call = device.table(precision_of(workload)).total([call_features(nodes)])[0]
    whole = call + sum(costs)
    sizes = {kernel.output: kernel.output_bytes for kernel in kernels}
    fallbacks = [_fallback(wanted, device.costs[each]) for each, wanted in zip(precisions, all_features, strict=True)]
    parts = zip(schedule.kernels, fallbacks, costs, schedule.live_bytes, strict=True)
    return Breakdown(
        layers=tuple(
            _layer(workload, kernel, sizes, (cost, cost / whole, fallback, live))
            for kernel, fallback, cost, live in parts
        ),
        call_microseconds=call,
        call_share=call / whole,
        latency=estimate(workload, kernels, device),
        peak_index=schedule.live_bytes.index(schedule.peak_bytes),
        unknown=MappingProxyType(Counter(op.function for op in workload.ops if op.kind == "other")),
    )


def kernel_name(kernel: Kernel) -> str:
    """What a kernel is called in tables and pictures: its first operation, or what it does to a tensor."""
    return kernel.ops[0].name if kernel.ops else f"{kernel.kind} {kernel.output}"


def _layer(
    workload: Workload, kernel: Kernel, sizes: Mapping[str, int], costs: tuple[float, float, bool, int]
) -> LayerProfile:
    first, output = (workload.tensor_of(name) for name in (kernel.inputs[0], kernel.output))
    microseconds, share, fallback_cost, live_bytes = costs
    read = sum(sizes[name] if name in sizes else workload.tensor_bytes(name) for name in dict.fromkeys(kernel.inputs))
    part = replace(workload, ops=kernel.ops)  # so that its weights are counted where all are
    weighted = next((op for op in kernel.ops if op.weight in part.weights()), None)
    return LayerProfile(
        name=kernel_name(kernel),
        kind=kernel.kind,
        function=kernel.ops[0].function if kernel.ops else "none",
        layout=kernel.layout,
        ops=tuple(op.name for op in kernel.ops),
        nodes=kernel.nodes,
        input_shape=workload.shapes[first],
        output_shape=workload.shapes[output],
        macs=kernel.macs,
        weight_bytes=part.weight_bytes,
        activation_bytes=read + kernel.output_bytes,
        input_bits=workload.format(first).bits,
        weight_bits=workload.format(weighted.weight).bits if weighted else None,
        microseconds=microseconds,
        share=share,
        fallback_cost=fallback_cost,
        live_bytes=live_bytes,
    )


def _fallback(all_features: Sequence[CostFeatures], known: Mapping[str, object]) -> bool:
    return any(features.kind not in known for features in all_features)
