"""Splits validation images into those that select a plan and those that evaluate the selected plan."""

from __future__ import annotations

import numpy as np

from compress.data.dataset import Split
from compress.stages.accuracy_change import confidence_on


def choosing_and_judging(val: Split, *, allowed: float, confidence: float, seed: int) -> tuple[Split, Split]:
    """Two halves of the validation images, each with as many of every class.

    The best of many plans is best partly by chance on the images that chose it, so others must judge it. Where half of
    them are too few to show with this confidence that at most ``allowed`` points are lost, both are all images.

    >>> labels = np.arange(6000) % 10
    >>> val = Split(np.zeros((6000, 1, 1, 1), np.uint8), labels)
    >>> choosing, judging = choosing_and_judging(val, allowed=1.0, confidence=0.9, seed=0)
    >>> len(choosing), len(judging), int(np.bincount(judging.labels).min())
    (3000, 3000, 300)
    """
    if confidence_on(len(val) // 2, allowed, confidence) < confidence:
        return val, val
    drawn = np.random.default_rng(seed).permutation(len(val))
    ordered = drawn[np.argsort(val.labels[drawn], kind="stable")]
    return val.take(np.sort(ordered[::2])), val.take(np.sort(ordered[1::2]))
