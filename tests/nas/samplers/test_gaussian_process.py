"""The Gaussian process against scikit-learn's and against finite differences."""

from __future__ import annotations

import numpy as np
from scipy.optimize import check_grad
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from nas.samplers.gaussian_process import (
    GaussianProcess,
    Hyperparameters,
    fit,
    negative_log_likelihood,
    squared_distances,
)

GROUPS = np.array([0, 1, 1])


def data(rows: int = 25) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    features = generator.random((rows, 3))
    return features, np.sin(4 * features[:, 0]) + features[:, 1] * features[:, 2]


def reference(log_weights: np.ndarray, log_scale: float, log_noise: float) -> GaussianProcessRegressor:
    # exp(−w d²) is the RBF of length scale (2 w)^(−1/2).
    lengths = (2 * np.exp(log_weights[GROUPS])) ** -0.5
    kernel = ConstantKernel(np.exp(log_scale)) * RBF(lengths) + WhiteKernel(np.exp(log_noise))
    return GaussianProcessRegressor(kernel, optimizer=None)


def test_the_posterior_is_that_of_scikit_learn() -> None:
    features, values = data()
    chosen = Hyperparameters(log_weights=np.array([0.7, -0.4]), log_scale=0.3, log_noise=-4.0)
    process = GaussianProcess(features, GROUPS, values, chosen)
    peer = reference(chosen.log_weights, chosen.log_scale, chosen.log_noise)
    # scikit-learn knows no mean but zero; ours is the one that generalized least squares finds.
    peer.fit(features, np.ones(len(values)))
    solved = peer.alpha_
    center = float(solved @ values / solved.sum())
    peer.fit(features, values - center)
    new = np.random.default_rng(1).random((10, 3))
    mean, deviation = peer.predict(new, return_std=True)
    ours, variance = process.predict(new)
    np.testing.assert_allclose(ours, mean + center, atol=1e-8)
    np.testing.assert_allclose(variance + np.exp(chosen.log_noise), deviation**2, atol=1e-8)
    np.testing.assert_allclose(process.fitted(), process.predict(features)[0], atol=1e-8)


def test_the_likelihood_is_that_of_scikit_learn_and_its_gradient_that_of_differences() -> None:
    features, values = data()
    distances = squared_distances(features, GROUPS, 2)
    points = [np.array([0.7, -0.4, 0.3, -4.0]), np.array([-1.0, 0.5, -0.2, -3.0])]
    centers, peers = [], []
    for point in points:
        peer = reference(point[:2], point[2], point[3]).fit(features, np.ones(len(values)))
        center = float(peer.alpha_ @ values / peer.alpha_.sum())
        centers.append(center)
        peers.append(peer.fit(features, values - center).log_marginal_likelihood_value_)
        error = check_grad(
            lambda p: negative_log_likelihood(p, distances, values)[0],
            lambda p: negative_log_likelihood(p, distances, values)[1],
            point,
        )
        assert error < 1e-3
    ours = [-negative_log_likelihood(point, distances, values)[0] for point in points]
    assert abs((ours[0] - ours[1]) - (peers[0] - peers[1])) < 1e-7


def test_the_fit_finds_what_matters() -> None:
    features = np.random.default_rng(2).random((40, 4))
    values = 3 * (features[:, 2] - 0.5)
    found = fit(features, np.arange(4), values / values.std(), np.zeros(4))
    assert found.log_weights.argmax() == 2
    noisy = values / values.std() + np.random.default_rng(3).normal(size=40)
    assert fit(features, np.arange(4), noisy, np.zeros(4)).log_noise > found.log_noise + 2
