"""Fits the costs of kernels to measured times of whole networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from hw_profiles.cost_model.features import QUANTITIES, SCALES, CostFeatures, family
from hw_profiles.cost_model.kernel_costs import CostTable, KernelCost, correction_covariance
from hw_profiles.errors import InputError

_MOST_POINTS = 120  # for each kind
_APART = 0.15  # points nearer than this to another, in scales of their family, add nothing
_NOISE = 0.03  # of a network's time, with what the features do not explain
_FOLDS = 5
_ROBUST_STEPS = 3
_LEAST_START = 0.02  # microseconds: no kernel starts for nothing

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Observation:
    """The cost features of a network and the microseconds that it took."""

    all_features: tuple[CostFeatures, ...]
    microseconds: float


def fit(observations: Sequence[Observation]) -> dict[str, KernelCost]:
    """The cost of every kind of kernel that was observed.

    First coefficients: least squares of relative errors, none below zero. Then, for each kind, corrections at some of
    the observed coordinates: a Gaussian process over coordinates, observed through the sums that networks are
    (subset of regressors, Rasmussen and Williams 2006, chapter 8). Networks far off the rest count for less.

    Raises:
        InputError: nothing was observed.
    """
    if not observations:
        raise InputError("at least one network must be measured")
    coefficients = _coefficients(observations)
    locations = {kind: found for kind, found in _locations(observations).items() if SCALES[family(kind)]}
    points = {kind: _spread_out(kind, found) for kind, found in locations.items()}
    weights = _corrections(observations, coefficients, points)
    return {
        kind: KernelCost(
            coefficients=tuple(coefficients[kind]),
            points=tuple(tuple(point) for point in points[kind].tolist()) if kind in points else (),
            weights=tuple(weights[kind].tolist()) if kind in points else (),
        )
        for kind in coefficients
    }


def cross_validated_errors(observations: Sequence[Observation]) -> Array:
    """log(predicted / measured) of every network by costs that were fitted without it."""
    errors = np.zeros(len(observations))
    for fold in range(_FOLDS):
        table = CostTable(fit([o for i, o in enumerate(observations) if i % _FOLDS != fold]))
        for i in range(fold, len(observations), _FOLDS):
            errors[i] = math.log(table.total(observations[i].all_features)[0] / observations[i].microseconds)
    return errors


def _locations(observations: Sequence[Observation]) -> dict[str, list[tuple[float, ...]]]:
    locations: dict[str, dict[tuple[float, ...], None]] = {}
    for observation in observations:
        for features in observation.all_features:
            locations.setdefault(features.kind, {})[features.coordinates] = None
    return {kind: sorted(found) for kind, found in sorted(locations.items())}


def _coefficients(observations: Sequence[Observation]) -> dict[str, list[float]]:
    kinds = sorted({features.kind for o in observations for features in o.all_features})
    keys = [(kind, i) for kind in kinds for i in range(len(QUANTITIES[family(kind)]))]
    columns = {key: j for j, key in enumerate(keys)}
    matrix = np.zeros((len(observations), len(columns)))
    for row, observation in zip(matrix, observations, strict=True):
        for features in observation.all_features:
            for i, amount in enumerate(features.quantities):
                row[columns[features.kind, i]] += amount / observation.microseconds
    starts = [QUANTITIES[family(kind)][i] == "start" for kind, i in columns]
    lowest = np.where(starts, _LEAST_START, 0.0)
    ridge = 1e-3 * np.eye(len(columns))
    target = np.concatenate([np.ones(len(observations)), np.zeros(len(columns))])
    solution = lsq_linear(np.vstack([matrix, ridge]), target, bounds=(lowest, np.inf)).x
    return {kind: [float(solution[columns[kind, i]]) for i in range(len(QUANTITIES[family(kind)]))] for kind in kinds}


def _spread_out(kind: str, locations: Sequence[tuple[float, ...]]) -> Array:
    """Some of the locations, each as far as possible from those before it."""
    scaled = np.array(locations, float).reshape(len(locations), len(SCALES[family(kind)])) / np.array(
        SCALES[family(kind)]
    )
    chosen = [int(np.argmin(((scaled - scaled.mean(axis=0)) ** 2).sum(axis=1)))]
    distance = ((scaled - scaled[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < _MOST_POINTS and distance.max() > _APART**2:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, ((scaled - scaled[chosen[-1]]) ** 2).sum(axis=1))
    return np.array(locations, float).reshape(len(locations), len(SCALES[family(kind)]))[chosen]


def _corrections(
    observations: Sequence[Observation], coefficients: Mapping[str, Sequence[float]], points: Mapping[str, Array]
) -> dict[str, Array]:
    start, count = {}, 0
    for kind, chosen in points.items():
        start[kind], count = count, count + len(chosen)
    precision = np.zeros((count, count))
    for kind, chosen in points.items():
        at = slice(start[kind], start[kind] + len(chosen))
        precision[at, at] = correction_covariance(kind, chosen, chosen) + 1e-6 * np.eye(len(chosen))
    measured = np.array([o.microseconds for o in observations])
    matrix = np.zeros((len(observations), count))
    known = np.zeros(len(observations))
    for kind in coefficients:
        rows, locations, amounts = _of_kind(kind, observations)
        cost = amounts @ np.array(coefficients[kind]) / measured[rows]
        np.add.at(known, rows, cost)
        if kind in points:
            at = slice(start[kind], start[kind] + len(points[kind]))
            np.add.at(matrix[:, at], rows, correction_covariance(kind, locations, points[kind]) * cost[:, None])
    weights = _robust_ridge(matrix, 1 - known, precision)
    return {kind: weights[start[kind] : start[kind] + len(chosen)] for kind, chosen in points.items()}


def _of_kind(kind: str, observations: Sequence[Observation]) -> tuple[NDArray[np.int64], Array, Array]:
    """Of all features of a kind: the index of the network, the coordinates, the quantities."""
    found = [
        (i, t.coordinates, t.quantities) for i, o in enumerate(observations) for t in o.all_features if t.kind == kind
    ]
    locations = np.array([coordinates for _, coordinates, _ in found], float).reshape(
        len(found), len(SCALES[family(kind)])
    )
    return np.array([i for i, _, _ in found]), locations, np.array([quantities for _, _, quantities in found])


def _robust_ridge(matrix: Array, target: Array, precision: Array) -> Array:
    """Weights of least squares under a Gaussian prior, by steps in which networks far off count for less."""
    trust = np.ones(len(target))
    for _ in range(_ROBUST_STEPS):
        weighted = matrix * trust[:, None]
        solution = np.linalg.solve(weighted.T @ matrix / _NOISE**2 + precision, weighted.T @ target / _NOISE**2)
        errors = target - matrix @ solution
        deviation = 1.4826 * float(np.median(np.abs(errors))) + 1e-12
        trust = 1 / (1 + (errors / (3 * deviation)) ** 2)
    return np.asarray(solution, np.float64)
