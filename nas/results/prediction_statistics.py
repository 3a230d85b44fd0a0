"""Statistics of test predictions: Wilson's interval, recalls, confusions, changed predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from hw_profiles.errors import InputError

MOST_CLASSES = 20  # more than that make no table that anyone reads
_EXAMPLES = 20

Predictions = NDArray[np.int64]


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95% Wilson score interval of a share ``right / total``, both ends in 0..1.

    It keeps its promise at shares near 0 and 1 and at small totals (10.1080/01621459.1927.10502953).

    Raises:
        InputError: not 0 <= right <= total, or a total below 1.

    >>> [round(end, 3) for end in wilson(9, 10)]
    [0.596, 0.982]
    """
    if not 0 <= right <= total or total < 1:
        raise InputError(f"wilson: right must be in 0..total and total at least 1, got {right} of {total}")
    found = binomtest(right, total).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def interval_of(accuracy: float, images: int) -> tuple[float, float]:
    """The 95% interval of an accuracy in 0..1 that was counted on so many images.

    >>> interval_of(0.9, 10) == wilson(9, 10)
    True
    """
    return wilson(round(accuracy * images), images)


def class_facts(predictions: Predictions, labels: Predictions, num_classes: int) -> dict[str, Any]:
    """Recall of each class, the confusions, and the matrix (rows are true classes) of at most 20 classes.

    ``predictions`` and ``labels`` are (N,). ``matrix`` is None above 20 classes; ``most_confused`` holds the 20 most
    frequent wrong pairs.

    >>> facts = class_facts(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
    >>> facts["matrix"], facts["per_class"][0]["recall"]
    ([[1, 1], [0, 1]], 0.5)
    """
    pairs, counts = np.unique(np.stack([labels, predictions]), axis=1, return_counts=True)
    wrong = [
        {"true": int(t), "predicted": int(p), "count": int(n)}
        for t, p, n in zip(*pairs, counts, strict=True)
        if t != p
    ]  # fmt: skip
    known = range(num_classes)
    matrix = confusion_matrix(labels, predictions, labels=known).tolist() if num_classes <= MOST_CLASSES else None
    wrong.sort(key=lambda pair: (-pair["count"], pair["true"], pair["predicted"]))
    return {
        "images": len(labels),
        "right": int((predictions == labels).sum()),
        "per_class": [_recall(predictions[labels == label] == label) for label in range(num_classes)],
        "matrix": matrix,
        "most_confused": wrong[:MOST_CLASSES],
    }


def flips(before: Predictions, after: Predictions, labels: Predictions) -> dict[str, Any]:
    """Which predictions changed from one file to another, all of (N,); the first 20 in ``examples``.

    >>> flips(np.array([0, 1, 2]), np.array([0, 0, 1]), np.array([0, 1, 0]))["right_before_wrong_now"]
    1
    """
    changed = before != after
    return {
        "changed": int(changed.sum()),
        "right_before_wrong_now": int((changed & (before == labels)).sum()),
        "wrong_before_right_now": int((changed & (after == labels)).sum()),
        "both_wrong_but_different": int((changed & (before != labels) & (after != labels)).sum()),
        "examples": [
            {"index": int(i), "true": int(labels[i]), "before": int(before[i]), "after": int(after[i])}
            for i in np.flatnonzero(changed)[:_EXAMPLES]
        ],
    }


def class_counts(labels: Predictions, num_classes: int) -> list[int]:
    """How many images each class has.

    >>> class_counts(np.array([0, 2, 2]), 3)
    [1, 0, 2]
    """
    counts: list[int] = np.bincount(labels, minlength=num_classes).tolist()
    return counts


def named(names: Sequence[str], index: int) -> str:
    """The name of a class; its number where a network has more classes than there are names.

    >>> named(["cat", "dog"], 1), named(["cat", "dog"], 7)
    ('dog', '7')
    """
    return names[index] if 0 <= index < len(names) else str(index)


def _recall(right: NDArray[np.bool_]) -> dict[str, Any]:
    count, total = int(right.sum()), len(right)
    if not total:
        return {"images": 0, "right": 0, "recall": None, "low": None, "high": None}
    low, high = wilson(count, total)
    return {"images": total, "right": count, "recall": count / total, "low": low, "high": high}
