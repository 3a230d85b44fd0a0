"""Accuracy where classes are of unequal size."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from compress.data.dataset import Split
from compress.training.evaluation import balanced_accuracy


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_it_is_that_of_scikit_learn(classes: int) -> None:
    generator = np.random.default_rng(classes)
    labels = generator.choice(classes, 300, p=generator.dirichlet(np.full(classes, 0.5)))
    predictions = np.where(generator.random(300) < 0.6, labels, generator.choice(np.unique(labels), 300))
    split = Split(np.zeros((300, 1, 1, 1), np.uint8), labels)
    assert balanced_accuracy(predictions, split) == pytest.approx(balanced_accuracy_score(labels, predictions))


def test_classes_that_the_split_lacks_do_not_count() -> None:
    split = Split(np.zeros((3, 1, 1, 1), np.uint8), np.array([0, 3, 3]))
    assert balanced_accuracy(np.array([0, 3, 5]), split) == pytest.approx(0.75)
