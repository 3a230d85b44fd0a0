"""One-dimensional k-means: chooses the values that represent many weights best."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_ITERATIONS = 300


def shared_values(
    values: NDArray[np.floating], clusters: int, *, start: str = "linear", counts: NDArray[np.integer] | None = None,
    seed: int = 0,
) -> Numbers:  # fmt: skip
    """Up to ``clusters`` ascending values from which all ``values`` (each there ``counts`` times) have the least
    squared distance that Lloyd's iterations find from ``start``, a key of ``STARTS``.

    The values are sorted once; a cluster is then a stretch of them, and an iteration costs ``clusters`` look-ups.

    >>> shared_values(np.array([0.0, 0.1, 1.0, 1.1, 5.0]), 3).round(2).tolist()
    [0.05, 1.05, 5.0]
    """
    distinct, places = np.unique(values, return_inverse=True)
    number = np.bincount(places.ravel(), None if counts is None else counts.ravel()).astype(np.float64)
    distinct = np.asarray(distinct, np.float64)
    if len(distinct) <= clusters:
        return distinct
    centroids = np.sort(STARTS[start](distinct, number, clusters, np.random.default_rng(seed)))
    totals = np.concatenate([[0.0], np.cumsum(number)])
    sums = np.concatenate([[0.0], np.cumsum(number * distinct)])
    for _ in range(_ITERATIONS):
        edges = np.concatenate([[0], np.searchsorted(distinct, _middles(centroids)), [len(distinct)]])
        inside = np.diff(totals[edges])
        moved = np.where(inside > 0, np.diff(sums[edges]) / np.maximum(inside, 1e-300), centroids)
        if (empty := np.flatnonzero(inside == 0)).size:
            moved[empty] = _worst_served(distinct, number, centroids, len(empty))
        moved.sort()
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def nearest(values: NDArray[np.floating], centroids: Numbers) -> NDArray[np.int64]:
    """The index of the nearest of ascending centroids for each value.

    >>> nearest(np.array([0.2, 0.9]), np.array([0.0, 1.0])).tolist()
    [0, 1]
    """
    found: NDArray[np.int64] = np.searchsorted(_middles(centroids), values)
    return found


def _middles(centroids: Numbers) -> Numbers:
    middles: Numbers = (centroids[1:] + centroids[:-1]) / 2
    return middles


def _worst_served(distinct: Numbers, number: Numbers, centroids: Numbers, count: int) -> Numbers:
    """The values that add most to the squared distance: where a centroid without any value is of use."""
    distance = number * (distinct - centroids[nearest(distinct, centroids)]) ** 2
    return distinct[np.argpartition(distance, -count)[-count:]]


def _linear(distinct: Numbers, number: Numbers, clusters: int, generator: np.random.Generator) -> Numbers:
    """Evenly from the smallest to the largest, so that the few large ones have centroids near them."""
    return np.linspace(distinct[0], distinct[-1], clusters)


def _density(distinct: Numbers, number: Numbers, clusters: int, generator: np.random.Generator) -> Numbers:
    """So that as many values lie between each two."""
    shares = (np.arange(clusters) + 0.5) / clusters
    chosen: Numbers = distinct[np.searchsorted(np.cumsum(number), shares * number.sum())]
    return chosen


def _random(distinct: Numbers, number: Numbers, clusters: int, generator: np.random.Generator) -> Numbers:
    """Values drawn by how often they are there."""
    return generator.choice(distinct, clusters, replace=False, p=number / number.sum())


STARTS: dict[str, Callable[[Numbers, Numbers, int, np.random.Generator], Numbers]] = {
    "linear": _linear,
    "density": _density,
    "random": _random,
}
