"""Costs by size alone: what networks take for each kernel, MAC, value and weight, whatever kernel it is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from hw_profiles.cost_model.features import CostFeatures, family
from hw_profiles.cost_model.kernel_costs import KernelCost
from hw_profiles.cost_model.scaling import cost_shares, quantity_group

_LEAST = 1e-3  # of a measured time: what others predict of it is never less
# The weight of an estimate is its deviation to the power of minus so many times the number of networks. 1 were right
# for normal errors; half of it did better on published tables: deviations of a few errors are uncertain themselves.
_TRUST = 0.5
_LEAST_DEVIATION = 0.01
_MOST_ERROR = 1.5

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeRegression:
    """Costs with one factor for each quantity; ``left_out`` holds log(predicted / measured) of each network by the
    others.
    """

    costs: Mapping[str, KernelCost]
    left_out: tuple[float, ...]


def size_regression(
    plain: Mapping[str, KernelCost], networks: Sequence[Sequence[CostFeatures]], microseconds: Sequence[float]
) -> SizeRegression:
    """The costs of :func:`hw_profiles.cost_model.plain_costs.plain_costs`, each quantity times one factor in all kinds:
    non-negative least squares of relative errors (Lawson and Hanson 1974, chapter 23). A quantity that explains nothing
    costs nothing.

    >>> start = KernelCost(coefficients=(1.0, 0.0, 0.0, 0.0, 0.0))
    >>> plain = {"call/call": start, "fused/sum": KernelCost(coefficients=(1.0,))}
    >>> call = CostFeatures("call/call", (), (1.0, 1.0, 0.0, 0.0, 0.0))
    >>> networks = [[call, CostFeatures("fused/sum", (), (size,))] for size in (1.0, 2.0, 4.0)]
    >>> found = size_regression(plain, networks, [5.0, 8.0, 14.0])
    >>> [round(found.costs[kind].coefficients[0], 3) for kind in plain]
    [2.0, 3.0]
    """
    shares = cost_shares(plain, networks)
    groups = [_group(*component) for component in shares.components]
    names = sorted(set(groups))
    of_group = np.array([[group == name for name in names] for group in groups], float)
    relative = shares.microseconds @ of_group / np.asarray(microseconds, float)[:, None]
    factors = dict(zip(names, _least_squares(relative).tolist(), strict=True))
    costs = {
        kind: replace(
            cost,
            coefficients=tuple(each * factors.get(_group(kind, i), 0.0) for i, each in enumerate(cost.coefficients)),
        )
        for kind, cost in plain.items()
    }
    everything = np.arange(len(relative))
    by_others = [float(row @ _least_squares(relative[everything != i])) for i, row in enumerate(relative)]
    return SizeRegression(costs=costs, left_out=tuple(np.log(np.maximum(by_others, _LEAST)).tolist()))


def mixture(
    costs: Mapping[str, KernelCost],
    left_out: Sequence[float],
    by_size: SizeRegression,
    networks: Sequence[Sequence[CostFeatures]],
) -> tuple[dict[str, KernelCost], tuple[float, ...]]:
    """The mean of two estimates, the more of the one the better it predicts each network from the others, and the
    log(predicted / measured) by the others of that mean; ``left_out`` holds those of ``costs``.

    Averages of models predict better than the one that seems best, and seldom worse than any of them (stacking: Breiman
    1996). Corrections of a kind change only the part of its costs that they were made for.

    >>> costs = {"fused/sum": KernelCost(coefficients=(1.0,))}
    >>> by_size = SizeRegression(costs={"fused/sum": KernelCost(coefficients=(3.0,))}, left_out=(0.2, -0.2))
    >>> mixed, left_out = mixture(costs, (0.2, -0.2), by_size, [[CostFeatures("fused/sum", (), (1.0,))]] * 2)
    >>> mixed["fused/sum"].coefficients, [round(each, 2) for each in left_out]
    ((2.0,), [0.2, -0.2])
    """
    errors = np.array([left_out, by_size.left_out])
    trust = (_deviation(errors) + _LEAST_DEVIATION) ** (-_TRUST * errors.shape[1])
    weight, other = (trust / trust.sum()).tolist()
    amounts = _amounts(networks)
    mixed = {}
    for kind, cost in costs.items():
        own = np.multiply(weight, cost.coefficients)
        both = own + np.multiply(other, by_size.costs[kind].coefficients)
        amount = amounts.get(kind, np.ones(len(both)))
        share = float(own @ amount) / max(float(both @ amount), 1e-12)
        mixed[kind] = replace(
            cost, coefficients=tuple(both.tolist()), weights=tuple(share * each for each in cost.weights)
        )
    return mixed, tuple(np.log(np.array([weight, other]) @ np.exp(errors)).tolist())


def _deviation(errors: Array) -> Array:
    """Root mean squares of the rows, of which no error counts for more than a factor of four and a half."""
    deviation: Array = np.sqrt(np.mean(np.minimum(np.abs(errors), _MOST_ERROR) ** 2, axis=1))
    return deviation


def _amounts(networks: Sequence[Sequence[CostFeatures]]) -> dict[str, Array]:
    """The sum of the quantities of each kind."""
    sums: dict[str, Array] = {}
    for features in (each for network in networks for each in network):
        sums[features.kind] = sums.get(features.kind, 0.0) + np.array(features.quantities)
    return sums


def _group(kind: str, i: int) -> str:
    return "call" if family(kind) == "call" else quantity_group(kind, i)


def _least_squares(relative: Array) -> Array:
    """The factors under which each network takes its measured time."""
    if not len(relative):
        return np.zeros(relative.shape[1])
    factors, _ = nnls(relative, np.ones(len(relative)))
    return np.asarray(factors, np.float64)
