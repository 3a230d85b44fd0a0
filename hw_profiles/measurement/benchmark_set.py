"""The networks whose times make a device file, each determined by its number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hw_profiles.measurement.random_networks import is_attention, is_long, micro_network
from hw_profiles.network.workload import Workload


@dataclass(frozen=True, slots=True)
class MeasuredNetworks:
    """Random networks; where ``typical`` gives networks as people use them, every second one is of those.

    >>> alone, both = MeasuredNetworks(), MeasuredNetworks(typical=lambda number: micro_network(1000 + number))
    >>> both.workload(2) == alone.workload(1), both.workload(3) == micro_network(1001)
    (True, True)
    """

    typical: Callable[[int], Workload] | None = None

    def workload(self, number: int) -> Workload:
        """The network of a number from 0 on."""
        typical, place = self._place(number)
        return self.typical(place) if typical and self.typical else micro_network(place)

    def is_typical(self, number: int) -> bool:
        """Whether that network is like those whose estimates matter: an interval is made of its errors."""
        typical, place = self._place(number)
        return typical or (self.typical is None and is_long(place))

    def is_float(self, number: int) -> bool:
        """Whether that network is written in float32 only."""
        typical, place = self._place(number)
        return not typical and is_attention(place)

    def _place(self, number: int) -> tuple[bool, int]:
        """Whether it is a typical one, and its number among its like."""
        return (number % 2 == 1, number // 2) if self.typical else (False, number)
