"""Explains why nothing fits: the limit that binds, the smallest values met, the smallest change that would work."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context, Decimal

from hw_profiles.budget import violations

UNITS = {"latency_ms": "ms", "peak_ram_bytes": "bytes of RAM", "flash_bytes": "bytes of flash", "energy_mj": "mJ"}

_CHANGE, _TOGETHER = "the smallest change of one limit", "the smallest change of all limits"
_OPTIONS = {
    "latency_ms": ("--latency", "ms"), "peak_ram_bytes": ("--ram", "B"), "flash_bytes": ("--flash", "B"),
    "energy_mj": ("--energy", "mJ"),
}  # fmt: skip


@dataclass(slots=True)
class Infeasibility:
    """Gathers the costs of candidates against limits.

    >>> found = Infeasibility({"latency_ms": 1.0, "flash_bytes": 1000})
    >>> for latency, flash in ((4, 900), (3, 500), (2, 2000)):
    ...     found.add({"latency_ms": latency, "flash_bytes": flash})
    >>> print(found.explain().replace("; ", "\\n"))
    3 candidates were tried
    the binding limit is latency_ms (at most 1 ms)
    the smallest value found was 2
    the smallest value found for flash_bytes was 500 (at most 1000 bytes of flash)
    the smallest single change that would work: latency_ms of 3 ms (--latency 3ms)
    """

    limits: Mapping[str, float]
    count: int = 0
    feasible: int = 0
    _broken: Counter[str] = field(default_factory=Counter)
    _smallest: dict[str, float] = field(default_factory=dict)
    _extremes: dict[str, Mapping[str, float]] = field(default_factory=dict)
    _change: tuple[float, str, float] | None = None  # the relative change, the limit, the value that would do
    _least_excess: float = math.inf

    def add(self, costs: Mapping[str, float], limits: Mapping[str, float] | None = None) -> None:
        """Count one candidate; ``limits`` are those that it was held against, where they are others."""
        excess = violations(costs, self.limits if limits is None else limits)
        over = {name: value for name, value in excess.items() if value > 0}
        self.count += 1
        self.feasible += not over
        self._broken.update(over.keys())
        for name in self.limits:
            if name not in self._smallest or costs[name] < self._smallest[name]:
                self._smallest[name], self._extremes[name] = costs[name], costs
        if over and sum(over.values()) < self._least_excess:
            self._least_excess, self._extremes[_TOGETHER] = sum(over.values()), costs
        if len(over) == 1:
            [(name, value)] = over.items()
            change = (value, name, self.limits[name] * (1 + value))
            if self._change is None or change < self._change:
                self._change, self._extremes[_CHANGE] = change, costs

    def extremes(self) -> list[Mapping[str, float]]:
        """The costs that an explanation speaks of; adding these explains as much as adding all."""
        return list({id(costs): costs for costs in self._extremes.values()}.values())

    def explain(self, searched: Mapping[str, float] | None = None) -> str:
        """One line; ``searched`` are the limits that the search used, at most those of the budget."""
        binding = max(self.limits, key=lambda name: self._broken[name])
        lines = [f"{self.count} candidates were tried"]
        for name in sorted(self.limits, key=lambda name: name != binding):
            allowed = f"at most {self.limits[name]:g}{_unit(name)}{_margin(name, self.limits, searched)}"
            smallest = f"{self._smallest[name]:g}"
            if name == binding:
                lines.append(f"the binding limit is {name} ({allowed}); the smallest value found was {smallest}")
            else:
                lines.append(f"the smallest value found for {name} was {smallest} ({allowed})")
        if self._change is not None:
            _, name, enough = self._change
            lines.append(
                f"the smallest single change that would work: {name} of {_enough(enough)}{_unit(name)}"
                f"{_as_options({name: enough})}"
            )
        elif _TOGETHER in self._extremes:
            closest = self._extremes[_TOGETHER]
            needed = {name: closest[name] for name, limit in self.limits.items() if closest[name] > limit}
            changes = ", ".join(f"{name} of {_enough(value)}{_unit(name)}" for name, value in needed.items())
            lines.append(f"no single change is enough; the smallest combined change: {changes}{_as_options(needed)}")
        return "; ".join(lines)


def _enough(limit: float) -> str:
    """Six digits of a limit, rounded up: of one that is rounded down the reader would find that it does not work."""
    shown = f"{limit:g}"
    if float(shown) >= limit:
        return shown
    return f"{float(Context(prec=6, rounding=ROUND_CEILING).create_decimal(Decimal(limit))):g}"


def _as_options(limits: Mapping[str, float]) -> str:
    """
    >>> _as_options({"peak_ram_bytes": 14_336.0}), _as_options({"size": 2.0})
    (' (--ram 14336B)', '')
    """
    if not limits.keys() <= _OPTIONS.keys():
        return ""
    return f" ({' '.join(_as_option(name, Decimal(_enough(value))) for name, value in limits.items())})"


def _as_option(name: str, limit: Decimal) -> str:
    option, unit = _OPTIONS[name]
    return f"{option} {math.ceil(limit) if unit == 'B' else format(limit, 'f')}{unit}"


def _unit(name: str) -> str:
    return f" {UNITS[name]}" if name in UNITS else ""


def _margin(name: str, asked: Mapping[str, float], searched: Mapping[str, float] | None) -> str:
    kept = asked[name] if searched is None else searched[name]
    return f", {kept:g} with the safety margin of the search" if kept < asked[name] else ""
