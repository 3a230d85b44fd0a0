"""Gaussian process regression whose kernel learns how much each feature of a network matters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

Array = npt.NDArray[np.float64]

_LOG_NOISE, _LOG_NOISE_SPREAD = float(np.log(1e-3)), 1.5
_NOISE_BOUNDS = (float(np.log(1e-4)), 0.0)
_LOG_SCALE_SPREAD = 1.0
_WEIGHT_SPREAD = 1.0
_MOST_STEPS = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Hyperparameters:
    """Logarithms: the weights of the groups of features, the variance of the signal, that of the noise."""

    log_weights: Array
    log_scale: float
    log_noise: float


class GaussianProcess:
    """The posterior of a function with a constant mean and the kernel ``scale · exp(−Σ w_g ‖x_g − y_g‖²)``.

    A row of ``features`` (N, F) describes a network, ``groups`` (F,) says to which group, of one weight, a feature
    belongs. A group of one-hot columns gives the kernel of a categorical choice (the Hamming distance), a group of one
    column that of an ordered one; a choice may have both, and the data say how much of each it is.

    Rasmussen and Williams, "Gaussian Processes for Machine Learning", chapter 2; the mean by generalized least squares.

    >>> x = np.array([[0.0], [1.0]])
    >>> chosen = Hyperparameters(log_weights=np.zeros(1), log_scale=0.0, log_noise=-9.0)
    >>> mean, variance = GaussianProcess(x, np.zeros(1, int), np.array([0.0, 1.0]), chosen).predict(x)
    >>> np.round(mean, 2).tolist()
    [0.0, 1.0]
    """

    def __init__(self, features: Array, groups: npt.NDArray[np.intp], values: Array, chosen: Hyperparameters) -> None:
        self._scale, self.noise = np.exp(chosen.log_scale), np.exp(chosen.log_noise)
        self._root = np.sqrt(np.exp(chosen.log_weights))[groups]
        self._points = features * self._root
        self._norms = (self._points**2).sum(1)
        self._signal = self._covariance(self._points)
        covariance = self._signal + self.noise * np.eye(len(values))
        self._inverse = inverse = _inverse(np.linalg.cholesky(covariance))
        sums = inverse.sum(1)
        self._mean = float(sums @ values / sums.sum())
        self._weights = inverse @ (values - self._mean)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Mean and variance (N,) of the function, without the noise."""
        covariance = self._covariance(features * self._root)
        explained = np.einsum("ij,ij->i", covariance @ self._inverse, covariance)
        variance = np.maximum(self._scale - explained, 1e-12)
        return self._mean + covariance @ self._weights, variance

    def fitted(self) -> Array:
        """The posterior mean at the observations."""
        return self._mean + self._signal @ self._weights

    def _covariance(self, points: Array) -> Array:
        distances = (points**2).sum(1)[:, None] + self._norms - 2 * points @ self._points.T
        covariance: Array = self._scale * np.exp(-np.maximum(distances, 0))
        return covariance


def fit(
    features: Array, groups: npt.NDArray[np.intp], values: Array, prior_log_weights: Array, known_noise: float = 0.0
) -> Hyperparameters:
    """The hyperparameters of the largest posterior density, by L-BFGS.

    Weights have log-normal priors around ``prior_log_weights`` (G,), which keeps many choices apart from few
    observations; the noise has one around 0.001 of the values' variance, which should be one, or around what is known
    of it where that is more.

    >>> x = np.array([[0.0, 0.3], [0.5, 0.1], [1.0, 0.7], [0.2, 0.9], [0.8, 0.4]])
    >>> found = fit(x, np.array([0, 1]), x[:, 0] * 2 - 1, np.zeros(2))
    >>> bool(found.log_weights[0] > found.log_weights[1])
    True
    """
    count = len(prior_log_weights)
    distances = squared_distances(features, groups, count)
    log_noise = min(max(_LOG_NOISE, np.log(known_noise) if known_noise > 0 else -np.inf), _NOISE_BOUNDS[1])
    prior = np.concatenate([prior_log_weights, [0.0, log_noise]])
    spread = np.concatenate([np.full(count, _WEIGHT_SPREAD), [_LOG_SCALE_SPREAD, _LOG_NOISE_SPREAD]])

    def loss(point: Array) -> tuple[float, Array]:
        value, gradient = negative_log_likelihood(point, distances, values)
        off = (point - prior) / spread
        return value + 0.5 * float(off @ off), gradient + off / spread

    bounds = [(center - 5, center + 5) for center in prior_log_weights] + [(-3, 3), _NOISE_BOUNDS]
    found = minimize(loss, prior, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": _MOST_STEPS}).x
    return Hyperparameters(log_weights=found[:count], log_scale=float(found[-2]), log_noise=float(found[-1]))


def squared_distances(features: Array, groups: npt.NDArray[np.intp], count: int) -> Array:
    """Squared distances between all rows in each group of features: (G, N·N)."""
    distances = np.empty((count, len(features) ** 2))
    for group in range(count):
        columns = features[:, groups == group]
        norms = (columns**2).sum(1)
        distances[group] = np.maximum(norms[:, None] + norms - 2 * columns @ columns.T, 0).ravel()
    return distances


def negative_log_likelihood(point: Array, distances: Array, values: Array) -> tuple[float, Array]:
    """The negative log marginal likelihood, less its constant, and its gradient by log weights, scale and noise."""
    number = len(values)
    weights, scale, noise = np.exp(point[:-2]), np.exp(point[-2]), np.exp(point[-1])
    signal = scale * np.exp(-(weights @ distances)).reshape(number, number)
    factor = np.linalg.cholesky(signal + noise * np.eye(number))
    inverse = _inverse(factor)
    sums = inverse.sum(1)
    centered = values - sums @ values / sums.sum()
    solved = inverse @ centered
    value = 0.5 * float(centered @ solved) + float(np.log(np.diag(factor)).sum())
    # The mean is at its optimum, so it adds nothing to the gradient.
    sensitivity = 0.5 * (inverse - np.outer(solved, solved))
    by_signal = (sensitivity * signal).ravel()
    gradient = np.concatenate([-(distances @ by_signal) * weights, [by_signal.sum(), np.trace(sensitivity) * noise]])
    return value, gradient


def _inverse(factor: Array) -> Array:
    """The inverse of the matrix of a lower Cholesky factor."""
    half = np.tril(dpotri(factor, lower=True)[0])
    inverse: Array = half + np.tril(half, -1).T
    return inverse
