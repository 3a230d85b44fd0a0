"""Folds a batch normalization into the weights before it (1502.03167)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def folded_norm(
    weight: Floats, bias: Any, *, scale: Any, shift: Any, mean: Any, variance: Any, epsilon: float
) -> tuple[Floats, Floats]:
    """Weights (out_channels, ...) and biases that make what a layer and the normalization behind it make, computed in
    double precision.

    >>> norm = {"scale": [3.0], "shift": [1.0], "mean": [2.0], "variance": [9.0], "epsilon": 0.0}
    >>> folded_norm(np.ones((1, 2), np.float32), 5.0, **norm)
    (array([[1., 1.]], dtype=float32), array([4.], dtype=float32))
    """
    wide = np.asarray(weight, np.float64)
    factor, rest = norm_line(scale, shift, mean, variance, epsilon=epsilon, bias=bias)
    folded = wide * factor.reshape(-1, *[1] * (wide.ndim - 1)) + 0.0  # no zero is negative
    return folded.astype(np.float32), rest.astype(np.float32)


def norm_line(
    scale: Any, shift: Any, mean: Any, variance: Any, *, epsilon: float, bias: Any = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a batch normalization multiplies each channel with, and adds, behind a layer with this bias.

    >>> norm_line([3.0], [1.0], [2.0], [9.0], epsilon=0.0)
    (array([1.]), array([-1.]))
    """
    gamma, beta, mu, sigma = (np.asarray(each, np.float64) for each in (scale, shift, mean, variance))
    factor = gamma / np.sqrt(sigma + epsilon)
    return factor, beta + (np.asarray(bias, np.float64) - mu) * factor
