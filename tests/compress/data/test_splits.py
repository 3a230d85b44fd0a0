"""Groups come into one split each, and classes keep their shares."""

from __future__ import annotations

import time

import numpy as np
import pytest

from compress.data.splits import divide


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_several_classes_are_divided_about_evenly(seed: int) -> None:
    generator = np.random.default_rng(seed)
    groups = generator.integers(0, 300, 6000)
    labels = (groups + generator.integers(0, 3, 6000)) % 10
    found = divide(labels, list("abcdefghij"), ["test", "val"], seed, groups)
    assert sorted(np.concatenate(list(found.values()))) == list(range(6000))
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not set(groups[found[one]]) & set(groups[found[other]])
    everywhere = np.bincount(labels)
    for split, share in (("train", 0.68), ("val", 0.12), ("test", 0.2)):
        assert np.bincount(labels[found[split]]) / everywhere == pytest.approx(share, abs=0.03)


def test_three_groups_of_a_class_are_enough_beside_large_ones() -> None:
    labels = np.repeat([0, 0, 0, 1, 1, 1, 1], [50, 1, 1, 300, 300, 300, 2])
    groups = np.repeat(np.arange(7), [50, 1, 1, 300, 300, 300, 2])
    found = divide(labels, ["a", "b"], ["test", "val"], 0, groups)
    assert all(set(labels[indices]) == {0, 1} for indices in found.values())


def test_groups_that_cannot_be_divided_are_told() -> None:
    labels, groups = np.tile([0, 1], 6), np.repeat([0, 1, 2], 4)
    assert len(divide(labels, ["a", "b"], ["test", "val"], 0, groups)["val"]) == 4
    with pytest.raises(
        ValueError, match="class 'a' has images in 2 groups, at least 3 are needed for test, val, train"
    ):
        divide(labels, ["a", "b"], ["test", "val"], 0, np.minimum(groups, 1))


@pytest.mark.slow
def test_a_hundred_thousand_groups_are_divided_in_seconds() -> None:
    start = time.perf_counter()
    found = divide(np.arange(100_000) % 1000, [str(i) for i in range(1000)], ["test", "val"], 0, np.arange(100_000))
    assert time.perf_counter() - start < 60
    assert abs(len(found["test"]) - 20_000) < 1000
