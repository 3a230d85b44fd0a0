"""Estimates the microseconds of kernels from the costs of a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

import numpy as np
from numpy.typing import NDArray

from hw_profiles.cost_model.features import QUANTITIES, SCALES, CostFeatures, family
from hw_profiles.errors import InputError

LOCAL, COMMON = 0.3, 0.05
"""Prior standard deviations of corrections, relative: at one location, and at all locations of a kind together."""
_FALLBACK_KINDS = {"grouped": "conv", "conv_transpose": "conv"}
_DOUBT_OF_FALLBACKS = 0.5
_MOST_COORDINATES = max(map(len, SCALES.values()))
_LEAST_SHARE = 0.1  # a correction never takes more than the rest of a cost

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelCost:
    """What one kind of kernel costs: microseconds for each unit of its quantities, and corrections of the sum at
    ``points``. ``doubt`` is the share of the cost that is in doubt because no measurement showed that kind.

    The correction at a location is the sum of the weights, each times how near its point is: 0.1 is ten percent more.
    """

    coefficients: tuple[float, ...]
    points: tuple[tuple[float, ...], ...] = ()
    weights: tuple[float, ...] = ()
    doubt: float = 0.0

    def __post_init__(self) -> None:
        if not all(linear_cost >= 0 for linear_cost in self.coefficients):
            raise InputError(f"coefficients must be at least 0, got {min(self.coefficients):g}")
        if len(self.points) != len(self.weights):
            raise InputError(
                f"points and weights must have the same length, got {len(self.points)} and {len(self.weights)}"
            )


def correction_covariance(kind: str, locations: Array, points: Array) -> Array:
    """Covariance of the corrections at ``locations`` (n, d) and at ``points`` (m, d): (n, m)."""
    scales = np.array(SCALES[family(kind)])
    difference = (locations[:, None, :] - points[None, :, :]) / scales
    covariance: Array = COMMON**2 + LOCAL**2 * np.exp(-0.5 * (difference**2).sum(axis=-1))
    return covariance


class _Corrected:
    """The kinds whose costs have corrections, for many features of any of them at once.

    Coordinates that a family lacks are 0 at all its locations; a kind that was measured at fewer points than others
    repeats its first one with weight 0.
    """

    def __init__(self, costs: Mapping[str, KernelCost]) -> None:
        most = max([len(cost.points) for cost in costs.values()], default=0)
        self.rows = {kind: i for i, kind in enumerate(costs)}
        self._coefficients = [cost.coefficients for cost in costs.values()]
        self._weights = LOCAL**2 * np.array([_padded(cost.weights, most) for cost in costs.values()])
        self._common = np.array([1 + COMMON**2 * sum(cost.weights) for cost in costs.values()])
        self._points = []
        for kind, cost in costs.items():
            repeated = cost.points[:1] * (most - len(cost.points))
            self._points.append(_ready(kind, cost.points + repeated))

    def costs(self, all_features: Sequence[CostFeatures], network_size: tuple[float, ...]) -> list[tuple[float, float]]:
        """Microseconds and doubt of each kernel, corrected as :func:`correction_covariance` says."""
        if not all_features:
            return []
        numbers = [self.rows[features.kind] for features in all_features]
        coefficients = [
            _linear_cost(self._coefficients[row], features.quantities)
            for row, features in zip(numbers, all_features, strict=True)
        ]
        near = self._nearness(
            _array([features.coordinates + network_size for features in all_features], _MOST_COORDINATES), numbers
        )
        rows = np.array(numbers)
        factors = (self._common[rows] + np.vecdot(near, self._weights[rows])).tolist()
        return [
            (linear_cost * max(factor, _LEAST_SHARE), LOCAL * max(1 - nearest, 0.0) * linear_cost)
            for linear_cost, factor, nearest in zip(coefficients, factors, near.max(axis=1).tolist(), strict=True)
        ]

    def _nearness(self, locations: Array, rows: Sequence[int]) -> Array:
        """(n, m): the exponential of half the negative square of the distance of each location from each point."""
        expanded = np.ones((len(locations), 2 * _MOST_COORDINATES + 1))
        expanded[:, :_MOST_COORDINATES] = locations
        expanded[:, _MOST_COORDINATES:-1] = locations * locations
        exponents = np.empty((len(locations), self._weights.shape[1]))
        # One by one: several rows at once would be added up in another order, and costs depend on their neighbors.
        for coordinates, row, exponent in zip(expanded, rows, exponents, strict=True):
            np.dot(coordinates, self._points[row], out=exponent)
        return np.exp(exponents, out=exponents)


def _ready(kind: str, points: Sequence[tuple[float, ...]]) -> Array:
    """What locations, their squares and 1 are multiplied with to get half the negative squares of their distances
    from the points, in units of the scales.
    """
    scales = np.array(_padded(SCALES[family(kind)], _MOST_COORDINATES, 1.0))
    scaled = _array(points, _MOST_COORDINATES) / scales
    each = np.broadcast_to(-0.5 / scales**2, scaled.shape)
    return np.ascontiguousarray(np.hstack([scaled / scales, each, -0.5 * (scaled**2).sum(axis=1, keepdims=True)]).T)


def _array(rows: Sequence[tuple[float, ...]], length: int) -> Array:
    """Rows filled up with zeros; numpy takes twice as long for tuples as for single numbers."""
    padded = [row if len(row) == length else _padded(row, length) for row in rows]
    return np.fromiter(chain.from_iterable(padded), float).reshape(-1, length)


def _linear_cost(coefficients: tuple[float, ...], quantities: tuple[float, ...]) -> float:
    return sum([each * amount for each, amount in zip(coefficients, quantities, strict=True)])


def _padded(row: tuple[float, ...], length: int, value: float = 0.0) -> tuple[float, ...]:
    return row + (value,) * (length - len(row))


class CostTable:
    """The costs of one device in one precision, ready to add up.

    >>> table = CostTable({"call/call": KernelCost(coefficients=(5.0, 0.5, 0.0, 0.0, 0.0))})
    >>> table.total([CostFeatures("call/call", (), (1.0, 4.0, 0.7, 0.3, 0.1))])
    (7.0, 0.0)
    """

    def __init__(self, costs: Mapping[str, KernelCost]) -> None:
        self._coefficients = {kind: cost.coefficients for kind, cost in costs.items()}
        self._doubts = {kind: cost.doubt for kind, cost in costs.items()}
        corrected = {kind: cost for kind, cost in costs.items() if cost.points and SCALES[family(kind)]}
        self._corrected = _Corrected(corrected)

    def total(self, all_features: Iterable[CostFeatures]) -> tuple[float, float]:
        """Microseconds of all kernels, and how many of them are in doubt because nothing alike was measured.

        Raises:
            InputError: the table has no cost for a kind of kernel, nor for one to fall back to.
        """
        [cost] = self.totals([all_features])
        return cost

    def totals(
        self, groups: Sequence[Iterable[CostFeatures]], network_size: float | None = None
    ) -> list[tuple[float, float]]:
        """The total of each group; all of them together take less time than one by one.

        A ``network_size`` is that of features whose coordinates lack it, see
        :func:`hw_profiles.cost_model.features.kernel_features`.
        """
        listed = [list(all_features) for all_features in groups]
        costs = self._costs(list(chain.from_iterable(listed)), () if network_size is None else (network_size,))
        ends = list(accumulate(map(len, listed), initial=0))
        each = [costs[start:end] for start, end in pairwise(ends)]
        return [(sum([cost[0] for cost in found]), sum([cost[1] for cost in found])) for found in each]

    def _costs(
        self, all_features: Sequence[CostFeatures], network_size: tuple[float, ...]
    ) -> list[tuple[float, float]]:
        """Microseconds and doubt of each kernel."""
        rows = self._corrected.rows
        corrected = iter(
            self._corrected.costs([features for features in all_features if features.kind in rows], network_size)
        )
        return [next(corrected) if features.kind in rows else self._uncorrected(features) for features in all_features]

    def _uncorrected(self, features: CostFeatures) -> tuple[float, float]:
        known = features.kind if features.kind in self._coefficients else self._fallback(features.kind)
        linear_cost = _linear_cost(self._coefficients[known], features.quantities)
        if known == features.kind:
            return linear_cost, self._doubts[known] * linear_cost
        linear_cost += self._macs_cost(features, known)
        return linear_cost, _DOUBT_OF_FALLBACKS * linear_cost

    def _macs_cost(self, features: CostFeatures, kind: str) -> float:
        """What the MACs of a kernel cost beside the costs of a fallback that has none, or windows of a pool in their
        place: as much as those of the most expensive convolution."""
        names = QUANTITIES[family(kind)]
        dearest = max(self._costs_of_macs(), default=0.0)
        if "mmacs" not in names or not dearest:
            return 0.0
        own = self._coefficients[kind][names.index("mmacs")]
        if own and family(kind) != "other":
            return 0.0
        return (dearest - own) * features.quantities[names.index("mmacs")]

    def _costs_of_macs(self) -> Iterator[float]:
        """Of each kind of convolution that adds up several channels."""
        for kind, coefficients in self._coefficients.items():
            names = QUANTITIES[family(kind)]
            if family(kind) in ("conv", "integer_conv", "layer") and "depthwise" not in kind:
                yield coefficients[names.index("mmacs")]

    def _fallback(self, kind: str) -> str:
        """The kind of the same name, or else the most expensive one of the family."""
        name, _, variant = kind.partition("/")[2].partition(".")
        alike = f"{family(kind)}/{_FALLBACK_KINDS.get(name, name)}.{variant}"
        if alike in self._coefficients:
            return alike
        same = [other for other in self._coefficients if family(other) == family(kind)]
        if not same:
            raise InputError(f"the device has no cost for {kind!r} (known: {', '.join(sorted(self._coefficients))})")
        return max(same, key=self._work)

    def _work(self, kind: str) -> float:
        """The costs of a kind, but for that of a start."""
        named = zip(QUANTITIES[family(kind)], self._coefficients[kind], strict=True)
        return sum(coefficient for name, coefficient in named if name != "start")


def quantity_names(kind: str) -> tuple[str, ...]:
    """The names of the quantities of a kind of kernel; an InputError where there is no such family.

    >>> quantity_names("fused/sum.blocked")
    ('mvalues',)
    """
    if family(kind) not in QUANTITIES:
        raise InputError(f"the family of {kind!r} must be one of {', '.join(QUANTITIES)}")
    return QUANTITIES[family(kind)]
