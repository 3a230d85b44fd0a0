"""Other validation images out of the same data, for scores that are taken more than once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset import VAL_DRAWN, Dataset, Split

_MOST_IMAGES = 10_000  # copied into memory; the scores of more are certain enough


def fold(data: Dataset, number: int) -> Dataset:
    """The same images with others of them for validation, as many of each class; fold 0 is the data as they are.

    The validation images of folds 0, 1, 2, … have none in common until all images were among them. Validation images
    that the user chose stay what they are, as do those of data with groups and of more than 10,000 images.

    >>> from compress.data.dataset import load_data
    >>> data = load_data("digits")
    >>> other = fold(data, 1)
    >>> len(other.val) == len(data.val), bool((other.val.images == data.val.images).all())
    (True, False)
    """
    few = len(data.train) + len(data.val) <= _MOST_IMAGES
    if number == 0 or not few or "groups" in data.facts or not data.facts.get(VAL_DRAWN):
        return data
    images = np.concatenate([data.val.images, data.train.images])
    labels = np.concatenate([data.val.labels, data.train.labels])
    chosen = np.concatenate([_chosen(labels, label, data, number) for label in range(data.num_classes)])
    others = np.setdiff1d(np.arange(len(labels)), chosen)
    return replace(data, val=Split(images[chosen], labels[chosen]), train=Split(images[others], labels[others]))


def _chosen(labels: NDArray[np.int64], label: int, data: Dataset, number: int) -> NDArray[np.int64]:
    """Which images of a class a fold validates on: those of fold 0 come first among ``labels``."""
    members, count = np.flatnonzero(labels == label), int(np.sum(data.val.labels == label))
    return members[(number * count + np.arange(count)) % len(members)]
