"""Microseconds of kernels from a device's table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

import numpy as np
from numpy.typing import NDArray

from hw_profiles.cost_model.features import SCALES, WORK, Term, family

LOCAL, COMMON = 0.3, 0.05
"""How far a cost may stray from its price: at one place, and at all places of a kind together."""
_STAND_INS = {"grouped": "conv", "conv_transpose": "conv"}
_DOUBT_OF_STAND_INS = 0.5
_MOST_COORDINATES = max(map(len, SCALES.values()))
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


class _Corrected:
    """The kinds whose prices have corrections, for many terms of any of them at once.

    Coordinates that a family lacks are 0 of all its places; a kind that was measured at fewer points than others
    repeats its first one with weight 0.
    """

    def __init__(self, costs: Mapping[str, KernelCost]) -> None:
        most = max([len(cost.points) for cost in costs.values()], default=0)
        self.rows = {kind: i for i, kind in enumerate(costs)}
        self._prices = [cost.prices for cost in costs.values()]
        self._weights = LOCAL**2 * np.array([_padded(cost.weights, most) for cost in costs.values()])
        self._common = np.array([1 + COMMON**2 * sum(cost.weights) for cost in costs.values()])
        self._points = []
        for kind, cost in costs.items():
            repeated = cost.points[:1] * (most - len(cost.points))
            self._points.append(_ready(kind, cost.points + repeated))

    def costs(self, terms: Sequence[Term], crowd: tuple[float, ...]) -> list[tuple[float, float]]:
        """Microseconds and doubt of each term, corrected as :func:`likeness` says."""
        if not terms:
            return []
        numbers = [self.rows[term.kind] for term in terms]
        prices = [_price(self._prices[row], term.work) for row, term in zip(numbers, terms, strict=True)]
        near = self._nearness(_array([term.place + crowd for term in terms], _MOST_COORDINATES), numbers)
        rows = np.array(numbers)
        factors = (self._common[rows] + np.vecdot(near, self._weights[rows])).tolist()
        return [
            (price * max(factor, _LEAST_SHARE), LOCAL * max(1 - nearest, 0.0) * price)
            for price, factor, nearest in zip(prices, factors, near.max(axis=1).tolist(), strict=True)
        ]

    def _nearness(self, places: Array, rows: Sequence[int]) -> Array:
        """(n, m): the exponential of half the negative square of the distance of each place from each point."""
        expanded = np.ones((len(places), 2 * _MOST_COORDINATES + 1))
        expanded[:, :_MOST_COORDINATES] = places
        expanded[:, _MOST_COORDINATES:-1] = places * places
        exponents = np.empty((len(places), self._weights.shape[1]))
        # One by one: several rows at once would be added up in another order, and costs depend on their neighbours.
        for place, row, exponent in zip(expanded, rows, exponents, strict=True):
            np.dot(place, self._points[row], out=exponent)
        return np.exp(exponents, out=exponents)


def _ready(kind: str, points: Sequence[tuple[float, ...]]) -> Array:
    """What places, their squares and 1 are multiplied with to get half the negative squares of their distances from the
    points, in units of the scales.
    """
    scales = np.array(_padded(SCALES[family(kind)], _MOST_COORDINATES, 1.0))
    scaled = _array(points, _MOST_COORDINATES) / scales
    each = np.broadcast_to(-0.5 / scales**2, scaled.shape)
    return np.ascontiguousarray(np.hstack([scaled / scales, each, -0.5 * (scaled**2).sum(axis=1, keepdims=True)]).T)


def _array(rows: Sequence[tuple[float, ...]], length: int) -> Array:
    """Rows filled up with zeros; numpy takes twice as long for tuples as for single numbers."""
    padded = [row if len(row) == length else _padded(row, length) for row in rows]
    return np.fromiter(chain.from_iterable(padded), float).reshape(-1, length)


def _price(prices: tuple[float, ...], work: tuple[float, ...]) -> float:
    return sum([each * amount for each, amount in zip(prices, work, strict=True)])


def _padded(row: tuple[float, ...], length: int, value: float = 0.0) -> tuple[float, ...]:
    return row + (value,) * (length - len(row))


class CostTable:
    """The costs of one device in one precision, ready to add up.

    >>> table = CostTable({"call/call": KernelCost(prices=(5.0, 0.5, 0.0, 0.0, 0.0))})
    >>> table.total([Term("call/call", (), (1.0, 4.0, 0.7, 0.3, 0.1))])
    (7.0, 0.0)
    """

    def __init__(self, costs: Mapping[str, KernelCost]) -> None:
        self._prices = {kind: cost.prices for kind, cost in costs.items()}
        corrected = {kind: cost for kind, cost in costs.items() if cost.points and SCALES[family(kind)]}
        self._corrected = _Corrected(corrected)

    def total(self, terms: Iterable[Term]) -> tuple[float, float]:
        """Microseconds of all terms, and how many of them are in doubt because nothing alike was measured.

        Raises:
            ValueError: the table has no price for a term, nor for one that could stand in for it.
        """
        [cost] = self.totals([terms])
        return cost

    def totals(self, groups: Sequence[Iterable[Term]], crowd: float | None = None) -> list[tuple[float, float]]:
        """The total of each group; all of them together take less time than one by one.

        A ``crowd`` is that of terms whose places lack it, see :func:`hw_profiles.cost_model.features.kernel_terms`.
        """
        listed = [list(terms) for terms in groups]
        costs = self._costs(list(chain.from_iterable(listed)), () if crowd is None else (crowd,))
        ends = list(accumulate(map(len, listed), initial=0))
        each = [costs[start:end] for start, end in pairwise(ends)]
        return [(sum([cost[0] for cost in found]), sum([cost[1] for cost in found])) for found in each]

    def _costs(self, terms: Sequence[Term], crowd: tuple[float, ...]) -> list[tuple[float, float]]:
        """Microseconds and doubt of each term."""
        rows = self._corrected.rows
        corrected = iter(self._corrected.costs([term for term in terms if term.kind in rows], crowd))
        return [next(corrected) if term.kind in rows else self._uncorrected(term) for term in terms]

    def _uncorrected(self, term: Term) -> tuple[float, float]:
        known = term.kind if term.kind in self._prices else self._fallback(term.kind)
        price = _price(self._prices[known], term.work)
        if known == term.kind:
            return price, 0.0
        price += self._macs_price(term, known)
        return price, _DOUBT_OF_STAND_INS * price

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

    def _fallback(self, kind: str) -> str:
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
