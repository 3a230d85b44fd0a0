"""Acquisition functions: expected improvement, and expected hypervolume improvement with known costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import erfcx, log_ndtr, ndtr

Array = npt.NDArray[np.float64]

_FAR, _VERY_FAR = -1.0, -1e4  # below these the closed forms lose their digits
_SAMPLES = 128


def log_expected_improvement(mean: Array, variance: Array, best: float) -> Array:
    """The logarithm of E[max(f − best, 0)] for normal f, exact also where the improvement is tiny (2310.20708).

    >>> round(float(np.exp(log_expected_improvement(np.zeros(1), np.ones(1), 0.0))[0]), 4)
    0.3989
    """
    deviation = np.sqrt(variance)
    u = (mean - best) / deviation
    near = np.maximum(u, _FAR)
    improvement = np.log(np.exp(-(near**2) / 2) / np.sqrt(2 * np.pi) + near * ndtr(near))
    # φ(u) + u Φ(u) as φ(u) times one less Mills' ratio, which keeps its digits; far out its limit u⁻² does.
    far = np.clip(u, _VERY_FAR, _FAR)
    rest = np.log1p(far * np.sqrt(np.pi / 2) * erfcx(-far / np.sqrt(2)))
    rest = np.where(u > _VERY_FAR, rest, -2 * np.log(np.maximum(-u, 1.0)))
    tail = -(np.minimum(u, _FAR) ** 2) / 2 - np.log(2 * np.pi) / 2 + rest
    result: Array = np.where(u >= _FAR, improvement, tail) + np.log(deviation)
    return result


def expected_improvement(mean: Array, variance: Array, best: Array) -> Array:
    """E[max(f − best, 0)] for normal f; the arguments are broadcast."""
    deviation = np.sqrt(variance)
    u = (mean - best) / deviation
    result: Array = np.maximum(deviation * (np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi) + u * ndtr(u)), 0)
    return result


def log_probability_below(mean: Array, variance: Array, limit: float) -> Array:
    """The logarithm of the probability that a normal variable is at most ``limit``."""
    result: Array = log_ndtr((limit - mean) / np.sqrt(variance))
    return result


@dataclass(frozen=True, kw_only=True, slots=True)
class Front:
    """Values (M,), to be maximized, with their costs (M, C), and the reference point of the hypervolume."""

    values: Array
    costs: Array
    reference_value: float
    reference_costs: Array


def expected_hypervolume_improvement(
    mean: Array, variance: Array, costs: Array, front: Front, generator: np.random.Generator
) -> Array:
    """How much hypervolume candidates (N,) of known costs (N, C) and normal value add in expectation to a front.

    At each point of the box of costs the volume gains what the value exceeds the best of the front that costs no more
    there: the sum over segments for one cost (exact), the mean over random points for more.

    >>> front = Front(values=np.array([0.5]), costs=np.array([[2.0]]), reference_value=0.0,
    ...               reference_costs=np.array([4.0]))
    >>> gain = expected_hypervolume_improvement(np.array([1.0]), np.array([1e-9]), np.array([[1.0]]), front,
    ...                                         np.random.default_rng(0))
    >>> round(float(gain[0]), 3)  # 1 from cost 1 to 2, and 0.5 from cost 2 to 4
    2.0
    """
    if costs.shape[1] == 1:
        ordered = np.argsort(front.costs[:, 0], kind="stable")
        lowest = min(costs.min(), front.costs.min())
        edges = np.concatenate([[lowest], front.costs[ordered, 0], front.reference_costs]).clip(
            max=front.reference_costs[0]
        )
        heights = np.maximum.accumulate(np.concatenate([[front.reference_value], front.values[ordered]]))
        shares = np.maximum(edges[None, 1:] - np.maximum(edges[None, :-1], costs), 0)
    else:
        corner = np.minimum(costs.min(0), front.costs.min(0))
        sides = np.maximum(front.reference_costs - corner, 0)
        points = corner + generator.random((_SAMPLES, costs.shape[1])) * sides
        reached = (front.costs[None, :, :] <= points[:, None, :]).all(2)
        heights = np.where(reached, np.maximum(front.values, front.reference_value), front.reference_value).max(1)
        shares = (costs[:, None, :] <= points[None, :, :]).all(2) * (np.prod(sides) / _SAMPLES)
    gains = expected_improvement(mean[:, None], variance[:, None], heights[None, :])
    result: Array = (gains * shares).sum(1)
    return result
