"""k-means of single numbers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

from compress.clustering.kmeans_1d import STARTS, nearest, shared_values


def squared_error(values: np.ndarray, centroids: np.ndarray) -> float:
    return float(((values - centroids[nearest(values, centroids)]) ** 2).sum())


@pytest.mark.parametrize("start", STARTS)
def test_they_are_those_of_another_implementation_from_the_same_start(start: str) -> None:
    values = np.random.default_rng(1).standard_normal(3000)
    distinct = np.unique(values)
    first = STARTS[start](distinct, np.ones(len(distinct)), 12, np.random.default_rng(0))
    reference = KMeans(12, init=np.sort(first)[:, None], n_init=1, max_iter=300, tol=0).fit(values[:, None])
    got = shared_values(values, 12, start=start)
    np.testing.assert_allclose(got, np.sort(reference.cluster_centers_[:, 0]), atol=1e-3)
    assert squared_error(values, got) == pytest.approx(reference.inertia_, rel=1e-4)


def test_values_that_are_few_are_kept_exactly() -> None:
    values = np.float32([3, 1, 1, 2])
    assert shared_values(values, 3).tolist() == [1, 2, 3]
    assert shared_values(values, 9).tolist() == [1, 2, 3]


def test_they_come_near_the_best_of_all_divisions() -> None:
    values = np.sort(np.random.default_rng(3).standard_normal(120))
    error = np.array([[values[i:j].var() * (j - i) if j > i else np.inf for j in range(121)] for i in range(121)])
    best = error[0]
    for _ in range(5):  # the best division into one stretch more: dynamic programming over where the last one begins
        best = (best[:, None] + error).min(axis=0)
    found = [squared_error(values, shared_values(values, 6, start=start)) for start in STARTS]
    assert best[-1] - 1e-9 <= min(found) < 1.05 * best[-1]


def test_counts_are_repetitions() -> None:
    distinct, counts = np.arange(-20.0, 20), np.random.default_rng(0).integers(1, 30, 40)
    assert shared_values(distinct, 5, counts=counts).tolist() == shared_values(np.repeat(distinct, counts), 5).tolist()


def test_no_value_is_wasted_on_nothing() -> None:
    """Evenly spread starts between far outliers have no weights near them."""
    values = np.concatenate([np.random.default_rng(0).normal(0, 0.01, 1000), [-5.0, 5.0]])
    centroids = shared_values(values, 8)
    assert len(np.unique(nearest(values, centroids))) == 8
    assert squared_error(values, centroids) < 0.2 * squared_error(values, np.array([-5.0, 0.0, 5.0]))


def test_random_starts_come_from_the_seed() -> None:
    values = np.random.default_rng(0).standard_normal(500)
    one, same, other = (shared_values(values, 20, start="random", seed=seed) for seed in (0, 0, 1))
    assert one.tolist() == same.tolist() != other.tolist()
