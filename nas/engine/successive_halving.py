"""Early stopping of candidates: asynchronous successive halving (1810.05934), with several objectives by fronts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from compress.argument_checks import is_number
from hw_profiles.errors import InputError

_REDUCTION = 3
_FEWEST_ENDED = 6  # trials before what they gained predicts what another will


def promising(losses: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Whether a trial is among the best third of those at its rung, itself included.

    ``losses`` are its objectives at that fidelity, each the smaller the better, ``others`` those of the others. With
    several objectives, trials that none dominates come first, then those that only these dominate, and so on; among
    equals one far from its neighbors comes before one among many (the order of NSGA-II, doi 10.1109/4235.996017).

    >>> promising([0.5], [[0.4]]), promising([0.5], [[0.6], [0.7]]), promising([1, 3], [[2, 2], [3, 1], [4, 4]])
    (False, True, True)
    """
    points = np.asarray([losses, *others], dtype=float)
    places = max(1, len(points) // _REDUCTION)
    ranks = front_ranks(points)
    distances = crowding_distances(points[ranks == ranks[0]])
    ahead = (ranks < ranks[0]).sum() + (distances > distances[0]).sum()
    return bool(ahead < places)


def surely_dominated(
    losses: Sequence[float], at_rung: Sequence[Sequence[float]], at_end: Sequence[Sequence[float]]
) -> bool:
    """Whether a trial of several objectives would most likely end where one that was trained to the end is no worse.

    ``losses`` are those at a rung; ``at_rung`` and ``at_end`` those of the trials that went on to the end. A trial is
    expected to change by the median of their changes, and gets the benefit of their standard deviation. One objective
    is left to the rank: few would be expected to become the best one so far.

    >>> ended = [[3, 1], [4, 1], [5, 1], [6, 1], [7, 1], [8, 1]]
    >>> surely_dominated([4, 2], ended, [[2, 1], [3, 1], [4, 1], [5, 1], [6, 1], [7, 1]])
    True
    """
    if len(losses) < 2 or len(at_end) < _FEWEST_ENDED:
        return False
    ends = np.asarray(at_end, dtype=float)
    changes = ends - np.asarray(at_rung, dtype=float)
    hoped = np.asarray(losses, dtype=float) + np.median(changes, axis=0) - changes.std(axis=0, ddof=1)
    return bool((ends <= hoped).all(axis=1).any())


def front_ranks(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """For (N, objectives), all minimized: 0 for points that no other dominates, 1 for those that only these do, …

    >>> front_ranks(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])).tolist()
    [0, 0, 1]
    """
    no_worse = np.all(points[:, None] <= points[None], axis=-1)
    dominates = no_worse & np.any(points[:, None] < points[None], axis=-1)
    ranks = np.full(len(points), -1)
    rank = 0
    while (open_ := ranks < 0).any():
        ranks[open_ & ~dominates[open_].any(0)] = rank
        rank += 1
    return ranks


def crowding_distances(front: NDArray[np.float64]) -> NDArray[np.float64]:
    """For (N, objectives): the sum over objectives of the gap between a point's neighbors, infinite at the ends.

    >>> crowding_distances(np.array([[0.0, 4.0], [1.0, 1.0], [4.0, 0.0]])).tolist()
    [inf, 2.0, inf]
    """
    if front.shape[1] == 1:
        return np.zeros(len(front))
    distances = np.zeros(len(front))
    for values in front.T:
        order = np.argsort(values, kind="stable")
        spread = values[order[-1]] - values[order[0]]
        distances[order[[0, -1]]] = np.inf
        if spread > 0:
            distances[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / spread
    return distances


def check_rungs(rungs: Sequence[float]) -> tuple[float, ...]:
    """The fidelities, or an InputError: they rise and end at 1.

    >>> check_rungs([0.25, 1])
    (0.25, 1.0)
    """
    if not isinstance(rungs, Sequence) or not all(is_number(rung, 0) for rung in rungs):
        raise InputError(f"rungs must increase from above 0 to 1, got {rungs!r}")
    checked = tuple(float(rung) for rung in rungs)
    rising = all(a < b for a, b in pairwise(checked))
    if not checked or not rising or checked[0] <= 0 or checked[-1] != 1:
        raise InputError(f"rungs must increase from above 0 to 1, got {tuple(rungs)}")
    return checked
