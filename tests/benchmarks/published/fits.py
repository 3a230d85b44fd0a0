"""Costs of layers fitted to published latencies: of one device, of a family of devices, and with families left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hw_profiles.cost_model.features import LAYER_KINDS
from hw_profiles.cost_model.kernel_costs import CostTable, KernelCost
from hw_profiles.cost_model.scaling import Scaling, scale
from hw_profiles.devices.facts import NINETY
from tests.benchmarks.published.tables import Published

# Microseconds for a start, a million MACs, a megabyte moved and a megabyte of weights on a core of no particular speed:
# only their ratios matter, and they are where the fits begin.
_MACS = {
    "fp32": {"first": 2.0, "depthwise": 4.0, "grouped": 3.0},
    "int8": {"first": 2.0, "depthwise": 4.0, "grouped": 3.0},
}
_MOVED = {"fp32": 300.0, "int8": 1000.0}
_NONLINEAR = 3.0
_MOST_ROWS = 12


def first_costs(precision: str) -> dict[str, KernelCost]:
    """Where fits begin: rough ratios between kinds of kernels on small cores."""
    costs = {"call/call": KernelCost(coefficients=(20.0, 0.0, 0.0, 0.0, 0.0))}
    for kind in LAYER_KINDS:
        macs = 1000.0 * _MACS[precision].get(kind, 1.0) * (precision == "fp32" or 1.0)
        moved = _MOVED[precision] * (_NONLINEAR if kind == "nonlinear" else 1.0)
        costs[f"layer/{kind}"] = KernelCost(coefficients=(10.0, macs, moved, 300.0))
    return costs


def by_table(rows: Sequence[Published]) -> dict[str, list[Published]]:
    """The rows of each table; several tables have the same machine under other software."""
    found: dict[str, list[Published]] = {}
    for row in rows:
        found.setdefault(row.table, []).append(row)
    return found


def pooled(rows: Sequence[Published], precision: str) -> dict[str, KernelCost]:
    """The costs that explain several tables best, each table up to a factor of its own; at the pace of the first."""
    costs = first_costs(precision)
    tables = [_thinned(table) for table in by_table(rows).values() if len(table) >= 3]
    if not tables:
        return costs
    for _ in range(2):
        paces = [_pace(table, costs) for table in tables]
        networks = [row.features for table in tables for row in table]
        times = [1000 * row.ms / pace for table, pace in zip(tables, paces, strict=True) for row in table]
        costs = _sure(scale(costs, networks, times, guessed=True).apply(costs))
    return costs


def _thinned(rows: Sequence[Published]) -> Sequence[Published]:
    """At most some rows of a table, from the smallest network to the largest: more say little of ratios."""
    ordered = sorted(rows, key=lambda row: row.macs)
    if len(ordered) <= _MOST_ROWS:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (_MOST_ROWS - 1))] for i in range(_MOST_ROWS)]


def _pace(rows: Sequence[Published], costs: Mapping[str, KernelCost]) -> float:
    """The geometric mean of published / estimated."""
    table = CostTable(costs)
    return math.exp(float(np.mean([math.log(1000 * row.ms / table.total(row.features)[0]) for row in rows])))


def _sure(costs: Mapping[str, KernelCost]) -> dict[str, KernelCost]:
    return {kind: replace(cost, doubt=0.0) for kind, cost in costs.items()}


def fitted(rows: Sequence[Published], base: Mapping[str, KernelCost]) -> Scaling:
    """The factors of a base's costs under which a device takes the published times."""
    return scale(base, [row.features for row in rows], [1000 * row.ms for row in rows], guessed=True)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One network that was predicted by costs fitted without its family, and the deviation that its estimate states."""

    row: Published
    ms: float
    macs_ms: float
    deviation: float

    @property
    def log_error(self) -> float:
        """Logarithm of estimate / published."""
        return math.log(self.ms / self.row.ms)

    @property
    def within(self) -> bool:
        """Whether the published time lies in the 90 % interval."""
        return abs(self.log_error) <= NINETY * self.deviation


def leave_families_out(rows: Sequence[Published], base: Mapping[str, KernelCost]) -> list[LeftOut]:
    """Each family predicted by the others; beside it one time for each MAC, fitted to the same networks. The interval
    of a family is what the other families miss when they are left out, or what the fit says if that is more.
    """
    found: dict[str, list[LeftOut]] = {}
    for family in sorted({row.family for row in rows}):
        others = [row for row in rows if row.family != family]
        if not others:
            return []
        scaling = fitted(others, base)
        table = CostTable(scaling.apply(base))
        per_mac = math.exp(float(np.mean([math.log(row.ms / row.macs) for row in others])))
        for row in rows:
            if row.family == family:
                microseconds, doubt = table.total(row.features)
                deviation = math.hypot(scaling.deviation, doubt / microseconds)
                found.setdefault(family, []).append(LeftOut(row, microseconds / 1000, per_mac * row.macs, deviation))
    return [
        replace(
            each, deviation=max(each.deviation, deviation_of([e for f, es in found.items() if f != family for e in es]))
        )
        for family, left in found.items()
        for each in left
    ]


def deviation_of(left_out: Sequence[LeftOut]) -> float:
    """Root mean square of the logarithms of estimate / published, each family counted once."""
    families: dict[str, list[float]] = {}
    for each in left_out:
        families.setdefault(each.row.family, []).append(each.log_error**2)
    return math.sqrt(float(np.mean([np.mean(squares) for squares in families.values()])))


def mean_error(found: Sequence[LeftOut]) -> tuple[float, float, float]:
    """Mean of |estimate / published - 1|, that of MACs alone, and the share in the interval."""
    ours = np.mean([abs(each.ms / each.row.ms - 1) for each in found])
    macs = np.mean([abs(each.macs_ms / each.row.ms - 1) for each in found])
    return float(ours), float(macs), float(np.mean([each.within for each in found]))
