"""Microseconds of kernels from a device's table."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
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

    >>> table = CostTable({"call/call": KernelCost(prices=(5.0, 0.5, 0.0, 0.0, 0.0))})
    >>> table.total([Term("call/call", (), (1.0, 4.0, 0.7, 0.3, 0.1))])
    (7.0, 0.0)
    """

    def __init__(self, costs: Mapping[str, KernelCost]) -> None:
        self._prices = {kind: cost.prices for kind, cost in costs.items()}
        self._points = {
            kind: (
                scales := np.array(SCALES[family(kind)]),
                np.array(cost.points) / scales,
                np.array(cost.weights),
                sum(cost.weights),
            )
            for kind, cost in costs.items()
            if cost.points and SCALES[family(kind)]
        }
        self._remembered: dict[Term, tuple[float, float]] = {}

    def total(self, terms: Iterable[Term]) -> tuple[float, float]:
        """Microseconds of all terms, and how many of them are in doubt because nothing alike was measured.

        Raises:
            ValueError: the table has no price for a term, nor for one that could stand in for it.
        """
        [cost] = self.totals([terms])
        return cost

    def totals(self, groups: Sequence[Iterable[Term]]) -> list[tuple[float, float]]:
        """The total of each group; what is new is worked out for all groups together, which takes less time."""
        listed = [list(terms) for terms in groups]
        new: dict[str, dict[Term, None]] = {}
        for terms in listed:
            for term in terms:
                if term not in self._remembered:
                    new.setdefault(term.kind, {})[term] = None
        if len(self._remembered) + sum(map(len, new.values())) > _MOST_REMEMBERED:
            self._remembered.clear()
            new = {}
            for term in itertools.chain(*listed):
                new.setdefault(term.kind, {})[term] = None
        for kind, found in new.items():
            self._remembered.update(zip(found, self._costs(kind, list(found)), strict=True))
        remembered = self._remembered
        costs = [[remembered[term] for term in terms] for terms in listed]
        return [(sum([cost[0] for cost in each]), sum([cost[1] for cost in each])) for each in costs]

    def _costs(self, kind: str, terms: Sequence[Term]) -> list[tuple[float, float]]:
        """Microseconds and doubt of some terms of one kind."""
        known = kind if kind in self._prices else self._stand_in(kind)
        prices = self._prices[known]
        priced = [sum([each * amount for each, amount in zip(prices, term.work, strict=True)]) for term in terms]
        if known != kind:
            priced = [price + self._macs_price(term, known) for price, term in zip(priced, terms, strict=True)]
            return [(price, _DOUBT_OF_STAND_INS * price) for price in priced]
        if kind not in self._points:
            return [(price, 0.0) for price in priced]
        near, corrections = self._corrections(kind, terms)
        return [
            (price * max(1 + correction, _LEAST_SHARE), LOCAL * (1 - nearest) * price)
            for price, nearest, correction in zip(priced, near, corrections, strict=True)
        ]

    def _corrections(self, kind: str, terms: Sequence[Term]) -> tuple[list[float], list[float]]:
        """How near the nearest point is to each term's place, and the correction there: as :func:`likeness`."""
        scales, points, weights, weight = self._points[kind]
        places = np.array([term.place for term in terms]) / scales
        difference = places[:, None, :] - points
        near = np.exp(-0.5 * np.einsum("ijk,ijk->ij", difference, difference))
        corrections = COMMON**2 * weight + LOCAL**2 * (near @ weights)
        return near.max(axis=1).tolist(), corrections.tolist()

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
