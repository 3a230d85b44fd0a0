"""Estimates a network from its blocks, so that after one change only the changed block is estimated again.

A part is a Workload that reads what the part before it makes, and nothing else of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hw_profiles.cost_model.features import CostFeatures, call_features, kernel_features, size_coordinate
from hw_profiles.devices.device import Device
from hw_profiles.memory.planner import peak_of_part
from hw_profiles.network.workload import Workload
from hw_profiles.runtimes.fusion import fuse_part
from hw_profiles.runtimes.kernels import Kernel
from hw_profiles.runtimes.ort_float import tensor_bytes

_MOST_REMEMBERED = 50_000


@dataclass(frozen=True, slots=True)
class PartsCost:
    """The sums over a network's parts, and the largest of their peaks."""

    microseconds: float
    doubt: float
    peak_bytes: int
    weight_bytes: int
    macs: int
    params: int
    weight_count: int


@dataclass(slots=True)
class _Part:
    workload: Workload  # kept, so that its id stays its own
    exit: str
    nodes: int
    all_features: list[CostFeatures]
    peak_bytes: int
    amounts: tuple[int, int, int, int]  # bytes of weights, MACs, parameters, weights
    costs: dict[float, tuple[float, float]] = field(default_factory=dict)  # network size -> microseconds and doubt


class _Fused(NamedTuple):
    workload: Workload
    formatted: Workload
    kernels: tuple[Kernel, ...]
    entry: str
    exit: str
    ends: bool


def parts_table(device: Device, precision: str) -> PartsTable:
    """The one table of the device in that precision."""
    key = ("parts", precision)
    if key not in device.memo:
        device.memo[key] = PartsTable(device, precision)
    table: PartsTable = device.memo[key]
    return table


class PartsTable:
    """Costs of parts on one device in one precision; computed parts are cached."""

    def __init__(self, device: Device, precision: str) -> None:
        self._device, self._precision = device, precision
        self._remembered: dict[tuple[int, str, bool], _Part] = {}
        self._calls: dict[int, float] = {}  # of so many nodes

    def total(self, parts: Sequence[Workload]) -> PartsCost | None:
        """The cost of the network that the parts are in this order; None where a kernel may reach over a seam."""
        found = self._found(parts)
        if found is None:
            return None
        nodes = sum([part.nodes for part in found])
        call = self._call_cost(nodes)
        known = self._priced(found, size_coordinate(nodes))
        amounts = [sum(column) for column in zip(*[part.amounts for part in found], strict=True)]
        return PartsCost(
            call + sum([cost[0] for cost in known]),
            sum([cost[1] for cost in known]),
            max([part.peak_bytes for part in found]),
            *amounts,
        )

    def _call_cost(self, nodes: int) -> float:
        if nodes not in self._calls:
            self._calls[nodes] = self._device.table(self._precision).total([call_features(nodes)])[0]
        return self._calls[nodes]

    def _priced(self, found: Sequence[_Part], network_size: float) -> list[tuple[float, float]]:
        new = [part for part in found if network_size not in part.costs]
        if new:
            costs = self._device.table(self._precision).totals([part.all_features for part in new], network_size)
            for part, cost in zip(new, costs, strict=True):
                part.costs[network_size] = cost
        return [part.costs[network_size] for part in found]

    def _found(self, parts: Sequence[Workload]) -> list[_Part] | None:
        """What is known of the parts. Each step is taken for all new ones at once, which takes a sixth less time."""
        if len(self._remembered) + len(parts) > _MOST_REMEMBERED:
            self._remembered.clear()
        keys: list[tuple[int, str, bool]] = []
        new: dict[tuple[int, str, bool], _Fused] = {}
        entry = ""
        for workload in parts:
            key = (id(workload), entry, len(keys) == len(parts) - 1)
            part = self._remembered.get(key) or new.get(key)
            if part is None:
                if entry and _reaches_back(workload):
                    return None
                part = new[key] = self._fused(workload, entry, key[2])
            keys.append(key)
            entry = part.exit
        if new:
            self._remembered.update(zip(new, _worked_out(list(new.values())), strict=True))
        return [self._remembered[key] for key in keys]

    def _fused(self, workload: Workload, entry: str, ends: bool) -> _Fused:
        formatted = workload.with_precision(self._precision)
        kernels, leaves = fuse_part(formatted, entry, ends=ends)
        return _Fused(workload, formatted, kernels, entry, leaves, ends)


def _worked_out(parts: Sequence[_Fused]) -> list[_Part]:
    all_features = [
        [features for kernel in part.kernels for features in kernel_features(part.formatted, kernel)] for part in parts
    ]
    nodes = [sum([len(kernel.nodes) for kernel in part.kernels]) for part in parts]
    peaks = [_peak_bytes(part) for part in parts]
    amounts = [_amounts(part) for part in parts]
    workloads, exits = [part.workload for part in parts], [part.exit for part in parts]
    return list(map(_Part, workloads, exits, nodes, all_features, peaks, amounts))


def _amounts(part: _Fused) -> tuple[int, int, int, int]:
    weight_count, weight_bytes = part.formatted.weight_amounts()
    macs = sum([kernel.macs for kernel in part.kernels])
    return weight_bytes, macs, weight_count + part.workload.norm_scales, weight_count


def _reaches_back(workload: Workload) -> bool:
    """Whether a kernel before the seam could take up the operation that reads it."""
    consumers = [op for op in workload.ops for name in op.inputs if name == workload.input]
    return len(consumers) == 1 and consumers[0].kind not in (
        "conv",
        "linear",
        "global_avg_pool",
        "avg_pool",
        "max_pool",
    )


def _peak_bytes(part: _Fused) -> int:
    """The peak of the part inside its network, where a seam is a tensor like any other."""
    workload = part.formatted
    kept = [] if part.entry else [workload.input]
    if part.ends:
        kept.append(workload.output)
    return peak_of_part(workload, part.kernels, tensor_bytes(workload, workload.input, part.entry), kept)
