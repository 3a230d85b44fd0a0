"""Corrects the costs of one machine, kernel by kernel, to those of another one of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hw_profiles.cost_model.features import CostFeatures
from hw_profiles.cost_model.kernel_costs import CostTable, KernelCost, correction_covariance
from hw_profiles.cost_model.scaling import scale

# Standard deviations that are tried: of the change of corrections, in those of a correction, and of a network's time.
# The widest ones are of machines of another kind, where kernels of one kind may differ by several times.
_WIDTHS, _NOISES = (0.0, 0.15, 0.3, 0.6, 1.0, 2.0, 3.0), (0.02, 0.04, 0.08, 0.16)
_ROBUST_STEPS = 2
_MOST_TO_SCALE = 120  # networks: the time grows as the cube of their number, and the factors are few
_FAR = 3.0  # deviations from which on a network counts for less
_JITTER = 1e-6
_MOST_LEFT_OUT = 0.9  # of a measured time that the others do not explain

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refined:
    """Costs with changed corrections; ``left_out`` holds log(predicted / measured) of each network by the others."""

    costs: Mapping[str, KernelCost]
    left_out: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind with corrections: the part of each network's time that each of its points corrects, and the inverse of
    the covariance of its points.
    """

    name: str
    parts: Array  # (networks, points)
    inverse: Array  # (points, points)


def refine(
    costs: Mapping[str, KernelCost],
    networks: Sequence[Sequence[CostFeatures]],
    microseconds: Sequence[float],
    left_out: Sequence[float] | None = None,
) -> Refined:
    """The costs with corrections that measured networks ask for, at the points that they have.

    The changes of the corrections are a Gaussian process over the coordinates of kernels, as the corrections are in
    :func:`hw_profiles.cost_model.fit.fit`, observed through the sums that networks are. How far machines of one kind
    differ, and how exact the times are, is what makes the measurements most likely (Rasmussen and Williams 2006,
    chapters 5 and 8.3.4); a network far off the others counts for less. Where the costs were fitted to the same
    networks, ``left_out`` says of each log(predicted / measured) by the others.

    >>> costs = {"fused/relu": KernelCost(coefficients=(2.0,), points=((3.0, 4.0),), weights=(0.0,))}
    >>> networks = [[CostFeatures("fused/relu", (3.0, 4.0), (float(n),))] for n in range(1, 9)]
    >>> found = refine(costs, networks, [2.4 * n for n in range(1, 9)])
    >>> bool(CostTable(found.costs).total(networks[0])[0] > 2.3)
    True
    """
    measured = np.asarray(microseconds, float)
    table = CostTable(costs)
    predicted = np.array([total for total, _ in table.totals(networks)])
    residuals = 1 - predicted / measured
    by_others = residuals if left_out is None else 1 - np.exp(np.asarray(left_out, float))
    kinds = [_kind(name, cost, networks, measured) for name, cost in costs.items() if cost.points]
    shared: Array = sum((kind.parts @ kind.inverse @ kind.parts.T for kind in kinds), np.zeros((len(measured),) * 2))
    trust = np.ones(len(measured))
    for _ in range(1 + _ROBUST_STEPS):
        width, noise = _likeliest(residuals, shared, trust)
        inverse = np.linalg.inv(width**2 * shared + np.diag(noise**2 / trust))
        unexplained = inverse @ by_others / np.diag(inverse)
        typical = max(1.4826 * float(np.median(np.abs(unexplained))), _NOISES[0])
        trust = 1 / (1 + (unexplained / (_FAR * typical)) ** 2)
    changes = {kind.name: width**2 * kind.inverse @ kind.parts.T @ inverse @ residuals for kind in kinds}
    refined = {
        name: replace(cost, weights=tuple((np.array(cost.weights) + changes.get(name, 0.0)).tolist()))
        for name, cost in costs.items()
    }
    return Refined(costs=refined, left_out=tuple(np.log1p(-np.minimum(unexplained, _MOST_LEFT_OUT)).tolist()))


def adapt(
    costs: Mapping[str, KernelCost], networks: Sequence[Sequence[CostFeatures]], microseconds: Sequence[float]
) -> Refined:
    """The costs of another machine of the same kind: the factors of :func:`hw_profiles.cost_model.scaling.scale`, by
    some of the networks where they are many, and then :func:`refine`, by all of them.

    >>> costs = {"call/call": KernelCost(coefficients=(1.0, 1.0, 0.0, 0.0, 0.0))}
    >>> networks = [[CostFeatures("call/call", (), (1.0, n, 0.0, 0.0, 0.0))] for n in (10.0, 20.0, 30.0)]
    >>> found = adapt(costs, networks, [22.0, 42.0, 62.0])
    >>> [round(each, 1) for each in found.costs["call/call"].coefficients[:2]]
    [2.0, 2.0]
    """
    step = -(-len(networks) // _MOST_TO_SCALE)
    scaling = scale(costs, networks[::step], microseconds[::step])
    return refine(scaling.apply(costs), networks, microseconds, scaling.left_out if step == 1 else None)


def _kind(name: str, cost: KernelCost, networks: Sequence[Sequence[CostFeatures]], measured: Array) -> _Kind:
    found = [(row, each) for row, features in enumerate(networks) for each in features if each.kind == name]
    points = np.array(cost.points, float)
    covariance = correction_covariance(name, points, points) + _JITTER * np.eye(len(points))
    inverse = np.asarray(np.linalg.inv(covariance), np.float64)
    parts = np.zeros((len(networks), len(points)))
    if found:
        rows = np.array([row for row, _ in found])
        amounts = np.array([each.quantities for _, each in found]) @ np.array(cost.coefficients) / measured[rows]
        locations = np.array([each.coordinates for _, each in found], float)
        np.add.at(parts, rows, correction_covariance(name, locations, points) * amounts[:, None])
    return _Kind(name, parts, inverse)


def _likeliest(residuals: Array, shared: Array, trust: Array) -> tuple[float, float]:
    """The width and the noise that make the residuals most likely."""
    tried = {
        (width, noise): _evidence(residuals, width**2 * shared, noise**2 / trust)
        for width, noise in product(_WIDTHS, _NOISES)
    }
    return max(tried, key=lambda each: tried[each])


def _evidence(residuals: Array, shared: Array, noise: Array) -> float:
    """The logarithm of how likely the residuals are, but for a constant."""
    covariance = shared + np.diag(noise)
    _, determinant = np.linalg.slogdet(covariance)
    return float(-0.5 * (residuals @ np.linalg.solve(covariance, residuals) + determinant))
