"""Facts of a device with their sources, and how far its estimates missed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from hw_profiles.errors import InputError

NINETY = NormalDist().inv_cdf(0.95)
"""Standard deviations either way that hold 90 %."""

FACTOR_OF_TWO = math.log(2) / NINETY
"""The relative standard deviation whose 90 % interval is a factor of two either way."""

ASSUMED = "assumed"
"""The source of a fact that nobody has read anywhere."""

FACTS: dict[str, type] = {
    "core": str,
    "cores": int,
    "clock_mhz": float,
    "ram_bytes": int,
    "flash_bytes": int,
    "cache": str,
    "instructions": str,
    "measured_with": str,
    "dead_channels": str,
    "runtime_ram_bytes": int,
    "runtime_flash_bytes": int,
    "c99_processor": str,
    "c99_cycles_per_instruction": float,
    "active_power_mw": float,
    "idle_power_mw": float,
}
"""The facts that a device may state. ``measured_with`` is the software of the published latencies; the runtime's RAM
and flash are what it takes beside activations and weights; ``dead_channels`` is :data:`DROPPED` where the runtime
leaves out channels that change nothing; ``c99_processor`` and ``c99_cycles_per_instruction`` are what estimates of our
own C99 programs need; power is that of ``note``'s scope, board or chip."""
DROPPED = "dropped"
_LARGEST = 1e15


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A value and its source. ``low`` and ``high`` are the ends of a published range; of a number that is assumed
    they are half and twice of it. ``note`` says what a reader must know to use it.

    >>> Fact(value=30.0, source=ASSUMED).high
    60.0
    """

    value: float | int | str
    source: str
    low: float | None = None
    high: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not self.source or not all(map(str.isprintable, (self.source, self.note, str(self.value)))):
            raise InputError(f"a fact must have a printable value, source and note, got {self.value!r:.80}")
        if isinstance(self.value, str):
            return
        if not 0 <= self.value <= _LARGEST:
            raise InputError(f"a fact must be a number from 0 to {_LARGEST:g}, got {self.value!r:.80}")
        factor = 2.0 if self.assumed else 1.0
        low, high = self.low, self.high
        object.__setattr__(self, "low", min(self.value if low is None else low, self.value / factor))
        object.__setattr__(self, "high", max(self.value if high is None else high, self.value * factor))

    @property
    def assumed(self) -> bool:
        """Whether nobody has read it anywhere."""
        return self.source == ASSUMED

    @property
    def deviation(self) -> float:
        """Half the logarithm of the range: how far the value may be off, relative."""
        if not self.low or not self.high:
            return 0.0
        return math.log(self.high / self.low) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """How far estimates missed on published networks that were not fitted, a family of networks left out at a time.

    ``networks`` in ``families``; ``mean_error`` is the mean of |estimate / published - 1|; ``macs_error`` that of one
    time for each MAC, fitted to the same networks; ``within_interval`` the share in the 90 % interval, in 0..1.
    """

    networks: int
    families: int
    mean_error: float
    macs_error: float
    within_interval: float
    source: str
