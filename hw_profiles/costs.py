"""Microseconds of kernels from a device's table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.terms import SCALES, WORK, Term, family

LOCAL, COMMON = 0.3, 0.05
"""How far a cost may stray from its price: at one place, and at all places of a kind together."""
_STAND_INS = {"grouped": "conv", "conv_transpose": "conv"}
_DOUBT_OF_STAND_INS = 0.5
_MOST_REMEMBERED = 200_000
_LEAST_SHARE = 0.1  # a correction never takes more than the rest of a price

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelCost:
    """What one kind of term costs: microseconds for each unit of its work, and corrections of the sum at ``points``.

    The correction at a place is the sum of the weights, each times how near its point is: 0.1 is ten percent more.
    """

    prices: tuple[float, ...]
    points: tuple[tuple[float, ...], ...] = ()
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not all(price >= 0 for price in self.prices):
            raise ValueError(f"prices must be at least 0, got {min(self.prices):g}")
        if len(self.points) != len(self.weights):
            raise ValueError(f"points and weights must be as many, got {len(self.points)} and {len(self.weights)}")


def likeness(kind: str, places: Array, points: Array) -> Array:
    """Covariance of the corrections at ``places`` (n, d) and at ``points`` (m, d): (n, m)."""
    scales = np.array(SCALES[family(kind)])
    difference = (places[:, None, :] - points[None, :, :]) / scales
    covariance: Array = COMMON**2 + LOCAL**2 * np.exp(-0.5 * (difference**2).sum(axis=-1))
    return covariance


class CostTable:
    """The costs of one device in one precision, ready to add up. It remembers every term that it was asked for.

    >>> table = CostTable({"call/call": KernelCost(prices=(5.0, 0.5, 0.0))})
    >>> table.total([Term("call/call", (), (1.0, 4.0, 0.3))])
    (7.0, 0.0)
    """

    def __init__(self, costs: Mapping[str, KernelCost]) -> None:
        self._prices = {kind: cost.prices for kind, cost in costs.items()}
        self._points = {
            kind: (np.array(SCALES[family(kind)]), np.array(cost.points), np.array(cost.weights), sum(cost.weights))
            for kind, cost in costs.items()
            if cost.points and SCALES[family(kind)]
        }
        self._remembered: dict[Term, tuple[float, float]] = {}

    def total(self, terms: Iterable[Term]) -> tuple[float, float]:
        """Microseconds of all terms, and how many of them are in doubt because nothing alike was measured.

        Raises:
            ValueError: the table has no price for a term, nor for one that could stand in for it.
        """
        microseconds = doubt = 0.0
        for term in terms:
            cost = self._remembered.get(term)
            if cost is None:
                if len(self._remembered) >= _MOST_REMEMBERED:
                    self._remembered.clear()
                cost = self._remembered[term] = self._cost(term)
            microseconds += cost[0]
            doubt += cost[1]
        return microseconds, doubt

    def _cost(self, term: Term) -> tuple[float, float]:
        kind = term.kind if term.kind in self._prices else self._stand_in(term.kind)
        price = sum([each * amount for each, amount in zip(self._prices[kind], term.work, strict=True)])
        if kind != term.kind:
            price += self._macs_price(term, kind)
            return price, _DOUBT_OF_STAND_INS * price
        if kind not in self._points:
            return price, 0.0
        # As `likeness`, for one place.
        scales, points, weights, weight = self._points[kind]
        difference = (points - term.place) / scales
        near = np.exp(-0.5 * np.einsum("ij,ij->i", difference, difference))
        correction = COMMON**2 * weight + LOCAL**2 * float(near @ weights)
        return price * max(1 + correction, _LEAST_SHARE), LOCAL * (1 - float(near.max())) * price

    def _macs_price(self, term: Term, kind: str) -> float:
        """What the MACs of a term cost whose stand-in has none: as much as those of the dearest convolution."""
        names = WORK[family(kind)]
        if "mmacs" not in names or self._prices[kind][names.index("mmacs")] > 0:
            return 0.0
        dearest = [
            price
            for other, prices in self._prices.items()
            for name, price in zip(WORK[family(other)], prices, strict=True)
            if name == "mmacs"
        ]
        return max(dearest) * term.work[names.index("mmacs")]

    def _stand_in(self, kind: str) -> str:
        """The kind of the same name, or else the one of the family whose work is dearest."""
        name, _, variant = kind.partition("/")[2].partition(".")
        alike = f"{family(kind)}/{_STAND_INS.get(name, name)}.{variant}"
        if alike in self._prices:
            return alike
        same = [other for other in self._prices if family(other) == family(kind)]
        if not same:
            raise ValueError(f"the device has no price for {kind!r} (known: {', '.join(sorted(self._prices))})")
        return max(same, key=lambda other: sum(self._prices[other][1:]))


def work_names(kind: str) -> tuple[str, ...]:
    """The names of what is priced for a kind of term; a ValueError where there is no such family.

    >>> work_names("fused/sum.blocked")
    ('mvalues',)
    """
    if family(kind) not in WORK:
        raise ValueError(f"the family of {kind!r} must be one of {', '.join(WORK)}")
    return WORK[family(kind)]
