"""Accuracy where classes are of unequal size."""

from __future__ import annotations

import numpy as np
import pytest

from compress.data.dataset import Split
from compress.training.evaluation import balanced_accuracy


def test_every_class_counts_the_same() -> None:
    split = Split(np.zeros((10, 1, 1, 1), np.uint8), np.array([0] * 8 + [1] * 2))
    assert balanced_accuracy(np.zeros(10, int), split) == pytest.approx(0.5)
    assert balanced_accuracy(np.array([0] * 6 + [1] * 4), split) == pytest.approx((6 / 8 + 1) / 2)


def test_classes_that_the_split_lacks_do_not_count() -> None:
    split = Split(np.zeros((3, 1, 1, 1), np.uint8), np.array([0, 3, 3]))
    assert balanced_accuracy(np.array([0, 3, 5]), split) == pytest.approx(0.75)
