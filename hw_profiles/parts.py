"""The costs of a network from those of its parts, so that one changed block is all that is worked out anew.

A part is a Workload that reads what the part before it makes, and nothing else of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hw_profiles.device import Device
from hw_profiles.fusion import fuse_part
from hw_profiles.kernels import Kernel
from hw_profiles.memory import plan
from hw_profiles.ort_float import tensor_bytes
from hw_profiles.terms import Term, call_term, crowd_of, in_a_crowd, kernel_terms
from hw_profiles.workload import Workload

_MOST_REMEMBERED = 50_000
_OUTSIDE = "@outside"


@dataclass(frozen=True, kw_only=True, slots=True)
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
    terms: tuple[Term, ...]
    nodes: int
    peak_bytes: int
    weight_bytes: int
    macs: int
    params: int
    weight_count: int
    costs: dict[float, tuple[float, float]]  # crowd -> microseconds and doubt


def parts_table(device: Device, precision: str) -> PartsTable:
    """The one table of the device in that precision."""
    key = ("parts", precision)
    if key not in device.memo:
        device.memo[key] = PartsTable(device, precision)
    table: PartsTable = device.memo[key]
    return table


class PartsTable:
    """Costs of parts on one device in one precision; it remembers every part that it was asked for."""

    def __init__(self, device: Device, precision: str) -> None:
        self._device, self._precision = device, precision
        self._remembered: dict[tuple[int, str, bool], _Part] = {}

    def total(self, parts: Sequence[Workload]) -> PartsCost | None:
        """The cost of the network that the parts are in this order; None where a kernel may reach over a seam."""
        found: list[_Part] = []
        entry = ""
        for workload in parts:
            ends = len(found) == len(parts) - 1
            key = (id(workload), entry, ends)
            part = self._remembered.get(key)
            if part is None:
                if entry and _reaches_back(workload):
                    return None
                if len(self._remembered) >= _MOST_REMEMBERED:
                    self._remembered.clear()
                part = self._remembered[key] = self._part(workload, entry, ends)
            found.append(part)
            entry = part.exit
        nodes = sum([part.nodes for part in found])
        crowd = crowd_of(nodes)
        new = [part for part in found if crowd not in part.costs]
        groups = [[call_term(nodes)], *[in_a_crowd(part.terms, crowd) for part in new]]
        (call_cost, _), *costs = self._device.table(self._precision).totals(groups)
        for part, cost in zip(new, costs, strict=True):
            part.costs[crowd] = cost
        priced = [part.costs[crowd] for part in found]
        return PartsCost(
            microseconds=call_cost + sum([cost[0] for cost in priced]),
            doubt=sum([cost[1] for cost in priced]),
            peak_bytes=max([part.peak_bytes for part in found]),
            weight_bytes=sum([part.weight_bytes for part in found]),
            macs=sum([part.macs for part in found]),
            params=sum([part.params for part in found]),
            weight_count=sum([part.weight_count for part in found]),
        )

    def _part(self, workload: Workload, entry: str, ends: bool) -> _Part:
        formatted = workload.with_precision(self._precision)
        kernels, leaves = fuse_part(formatted, entry, ends=ends)
        terms = [term for kernel in kernels for term in kernel_terms(formatted, kernel)]
        return _Part(
            workload, leaves, tuple(terms), sum([len(kernel.nodes) for kernel in kernels]),
            _peak_bytes(formatted, kernels, entry, ends), formatted.weight_bytes, workload.macs, workload.params,
            workload.weight_count, {},
        )  # fmt: skip


def _reaches_back(workload: Workload) -> bool:
    """Whether a kernel before the seam could take up the operation that reads it."""
    readers = workload.consumers()[workload.input]
    return len(readers) == 1 and readers[0].kind not in ("conv", "linear", "global_avg_pool", "avg_pool", "max_pool")


def _peak_bytes(workload: Workload, kernels: Sequence[Kernel], entry: str, ends: bool) -> int:
    """The peak of the part inside its network, where a seam is a tensor like any other."""
    if entry:
        before = Kernel("seam", (), (), workload.input, 0, 0, entry, (), tensor_bytes(workload, workload.input, entry))
        kernels = (before, *kernels)
        workload = replace(workload, input=_OUTSIDE, shapes={**workload.shapes, _OUTSIDE: (0,)})
    if not ends:
        after = Kernel("seam", (), (workload.output,), f"{_OUTSIDE}@", 0, 0, "", (), 0)
        kernels = (*kernels, after)
        workload = replace(workload, output=f"{_OUTSIDE}@")
    return plan(workload, kernels, "ort").peak_bytes
