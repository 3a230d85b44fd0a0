"""Explains why nothing fits: the binding limit, the smallest values found, and the smallest change that would work."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context, Decimal

from hw_profiles.budget import violations

_CHANGE, _TOGETHER = "the smallest change of one limit", "the smallest change of all limits"
# The costs with an option: what they are called, the option, its unit, and their unit in a sentence.
_OPTIONS = {
    "latency_ms": ("latency", "--latency", "ms", "ms"),
    "peak_ram_bytes": ("peak RAM", "--ram", "B", "bytes"),
    "flash_bytes": ("weight size", "--flash", "B", "bytes"),
    "energy_mj": ("energy", "--energy", "mJ", "mJ"),
}


@dataclass(slots=True)
class Infeasibility:
    """Gathers the costs of candidates against limits.

    >>> found = Infeasibility({"latency_ms": 1.0, "flash_bytes": 1000})
    >>> for latency, flash in ((4, 900), (3, 500), (2, 2000)):
    ...     found.add({"latency_ms": latency, "flash_bytes": flash})
    >>> print(found.explain().replace("; ", "\\n"))
    3 candidates were checked
    the binding limit is latency (at most 1 ms)
    the smallest value found was 2 ms
    the smallest value found for weight size was 500 bytes (at most 1,000 bytes)
    the smallest change of one limit that would work: latency at most 3 ms (--latency 3ms)
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
        """Count one candidate; ``limits`` are those that it was compared with, if they differ."""
        excess = violations(costs, self.limits if limits is None else limits)
        over = {name: value for name, value in excess.items() if value > 0}
        self.count += 1
        self.feasible += not over
        self._broken.update(over.keys())
        for name in self.limits:
            if name not in self._smallest or costs[name] < self._smallest[name]:
                self._smallest[name], self._extremes[name] = costs[name], costs
        if over and sum(over.values()) < self._least_excess:  # never an infinite cost, which no change allows
            self._least_excess, self._extremes[_TOGETHER] = sum(over.values()), costs
        if len(over) == 1 and math.isfinite(sum(over.values())):
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
        lines = [f"{self.count:,} candidates were checked"]
        for name in sorted(self.limits, key=lambda name: name != binding):
            allowed = f"at most {cost_text(name, self.limits[name])}{_margin(name, self.limits, searched)}"
            smallest, label = cost_text(name, self._smallest[name]), cost_label(name)
            if name == binding:
                lines.append(f"the binding limit is {label} ({allowed}); the smallest value found was {smallest}")
            else:
                lines.append(f"the smallest value found for {label} was {smallest} ({allowed})")
        if self._change is not None:
            _, name, enough = self._change
            lines.append(f"the smallest change of one limit that would work: {_changed({name: enough})}")
        elif _TOGETHER in self._extremes:
            closest = self._extremes[_TOGETHER]
            needed = {name: closest[name] for name, limit in self.limits.items() if closest[name] > limit}
            lines.append(f"no single change is enough; the smallest combined change: {_changed(needed)}")
        return "; ".join(lines)


def _changed(limits: Mapping[str, float]) -> str:
    """Limits that would be enough, rounded up, as words and as options.

    >>> _changed({"latency_ms": 2.0000001, "peak_ram_bytes": 14_335.5}), _changed({"size": 2.0})
    ('latency at most 2.00001 ms, peak RAM at most 14,336 bytes (--latency 2.00001ms --ram 14336B)', 'size at most 2')
    """
    enough = {name: _rounded_up(limit) for name, limit in limits.items()}
    words = ", ".join(
        f"{cost_label(name)} at most {cost_text(name, float(limit), 6)}" for name, limit in enough.items()
    )
    if not limits.keys() <= _OPTIONS.keys():
        return words
    return f"{words} ({' '.join(_as_option(name, limit) for name, limit in enough.items())})"


def _rounded_up(limit: float) -> Decimal:
    """Six digits: a limit that is rounded down would not work."""
    shown = Decimal(f"{limit:g}")
    return shown if shown >= Decimal(limit) else Context(prec=6, rounding=ROUND_CEILING).create_decimal(Decimal(limit))


def _as_option(name: str, limit: Decimal) -> str:
    _, option, unit, _ = _OPTIONS[name]
    return f"{option} {math.ceil(limit) if unit == 'B' else format(limit, 'f')}{unit}"


def cost_label(name: str) -> str:
    """What a cost is called; a cost of the user's own by its key.

    >>> cost_label("flash_bytes"), cost_label("size")
    ('weight size', 'size')
    """
    return _OPTIONS[name][0] if name in _OPTIONS else name


def cost_text(name: str, value: float, digits: int = 4) -> str:
    """A cost with its unit.

    >>> cost_text("peak_ram_bytes", 6144), cost_text("latency_ms", 1.07812), cost_text("size", 12)
    ('6,144 bytes', '1.078 ms', '12')
    """
    unit = _OPTIONS[name][3] if name in _OPTIONS else ""
    if unit == "bytes" and math.isfinite(value):
        return f"{math.ceil(value):,} byte{'' if math.ceil(value) == 1 else 's'}"
    return f"{value:.{digits}g} {unit}".rstrip()


def _margin(name: str, asked: Mapping[str, float], searched: Mapping[str, float] | None) -> str:
    kept = asked[name] if searched is None else searched[name]
    return f", {cost_text(name, kept)} with the safety margin of the search" if kept < asked[name] else ""
