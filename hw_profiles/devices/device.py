"""A Device: specifications and kernel costs as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hw_profiles.cost_model.kernel_costs import CostTable, KernelCost
from hw_profiles.devices.facts import DROPPED, Fact, HeldOut
from hw_profiles.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Device:
    """A target device: kernel costs, memory, clock and power.

    ``costs[precision][kind]`` is the cost of a kind of kernel; ``spread[precision]`` the relative standard deviation of
    the estimation error; ``conditions`` those of the measurement, except for the precisions in ``calibrated``, which
    were corrected by later measurements; ``reference_ms`` the time of the reference network under these conditions;
    ``measurable`` whether this process runs on the device; ``source`` where the figures come from; ``facts`` all other
    known facts, see :data:`hw_profiles.devices.facts.FACTS`; ``held_out[precision]`` the error on held-out networks, if
    measurements are published.
    """

    name: str
    description: str
    runtime: str
    threads: int
    channel_multiple: int
    measurable: bool
    source: str
    reference_ms: float | None = None
    calibrated: tuple[str, ...] = ()
    conditions: Mapping[str, str]
    spread: Mapping[str, float]
    costs: Mapping[str, Mapping[str, KernelCost]]
    facts: Mapping[str, Fact] = field(default_factory=dict)
    held_out: Mapping[str, HeldOut] = field(default_factory=dict)

    def table(self, precision: str) -> CostTable:
        """The costs in a precision, ready to add up; an InputError where the device has none."""
        if precision not in self.costs:
            known = ", ".join(self.costs)
            raise InputError(f"device {self.name} has no costs in {precision} (known: {known})")
        key = ("table", precision)
        if key not in self.memo:
            self.memo[key] = CostTable(self.costs[precision])
        table: CostTable = self.memo[key]
        return table

    def number(self, fact: str) -> float | None:
        """The value of a fact that is a number, None where it is not known."""
        found = self.facts.get(fact)
        return found.value if found is not None and not isinstance(found.value, str) else None

    @property
    def drops_dead_channels(self) -> bool:
        """Whether its runtime leaves out channels that change nothing of what a network computes."""
        found = self.facts.get("dead_channels")
        return found is not None and found.value == DROPPED

    @cached_property
    def memo(self) -> dict[tuple[str, str], Any]:
        """What was worked out of these facts already."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Its facts alone: what was worked out of them is worked out again where it is loaded."""
        return {name: value for name, value in vars(self).items() if name != "memo"}
