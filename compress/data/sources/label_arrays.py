"""Labels given as an array: integers, strings or one-hot rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import InputError


def label_vector(labels: Any, count: int, name: str = "labels") -> NDArray[Any]:
    """Labels (N,) of integers or text, of a vector (N,), a column (N, 1), or one-hot rows (N, classes) of 0 and 1.

    Raises:
        InputError: another shape or kind, or another number than ``count``.

    >>> label_vector([[2], [0]], 2).tolist(), label_vector(np.eye(3), 3).tolist()
    ([2, 0], [0, 1, 2])
    """
    y = np.asarray(labels)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    elif y.ndim == 2 and y.shape[1] > 1 and _is_one_hot(y):
        y = y.argmax(1)
    if y.ndim != 1 or len(y) != count or y.dtype.kind not in "iuU":
        raise InputError(
            f"{name}: labels must be integers or text, one for each of {count} images, as (N,), (N, 1) or one-hot, "
            f"got {y.dtype} {y.shape}"
        )
    return y


def _is_one_hot(y: NDArray[Any]) -> bool:
    return y.dtype.kind in "iufb" and bool(np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all())
