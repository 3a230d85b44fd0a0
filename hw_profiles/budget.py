"""A Budget: the limits that a network must keep on a device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from hw_profiles.errors import InputError

if TYPE_CHECKING:
    from hw_profiles.profiling import Profile


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Upper limits on latency, memory, weight size and energy; None means no limit.

    Raises:
        InputError: a limit that is not a positive number.

    >>> Budget(latency_ms=5).limits()
    {'latency_ms': 5}
    """

    latency_ms: float | None = None
    peak_ram_bytes: float | None = None
    flash_bytes: float | None = None
    energy_mj: float | None = None

    def __post_init__(self) -> None:
        for name, limit in self.limits().items():
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < math.inf:
                raise InputError(f"Budget.{name} must be a positive number, got {limit!r}")

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: limit for name, limit in asdict(self).items() if limit is not None}

    def violations(self, profile: Profile) -> dict[str, float]:
        """For each limit value / limit - 1: it holds at 0 and below.

        Raises:
            InputError: the profile does not know a value that is limited.
        """
        return violations({name: getattr(profile, name) for name in self.limits()}, self.limits())


def violations(values: Mapping[str, float | None], limits: Mapping[str, float]) -> dict[str, float]:
    """value / limit - 1 for each limit.

    Raises:
        InputError: a limited value is missing.

    >>> violations({"latency_ms": 6.0, "macs": 1.0}, {"latency_ms": 5.0})
    {'latency_ms': 0.19999999999999996}
    """
    excess = {}
    for name, limit in limits.items():
        value = values.get(name)
        if value is None:
            raise InputError(f"{name} is limited, but its value is not known; available: {_known(values)}")
        excess[name] = value / limit - 1
    return excess


def _known(values: Mapping[str, float | None]) -> str:
    return ", ".join(name for name, value in values.items() if value is not None) or "nothing"
