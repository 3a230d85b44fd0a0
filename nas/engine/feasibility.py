"""Checks before training whether any network of a space meets the limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from typing import Any

from nas.engine.unseen_candidates import Unseen
from nas.samplers.problem import Problem
from nas.samplers.trial_attributes import ACCURACY

_SECONDS = 20.0


def why_infeasible(
    space: Callable[[Any], Hashable], cost: Callable[[Any], Mapping[str, float]], limits: Mapping[str, float], seed: int
) -> str | None:
    """Why none of many candidates keeps the limits: the limit that binds and the smallest change that would work; None
    where one does, or none was found in 20 seconds, which proves nothing.

    >>> from search_spaces import load_space
    >>> space = load_space("tiny", input_shape=(1, 16, 16), num_classes=2)
    >>> why_infeasible(space, lambda arch: {"params": arch.workload().params}, {"params": 1e6}, 0) is None
    True
    """
    if not limits:
        return None
    problem = Problem(space=space, cost=lru_cache(maxsize=None)(cost), limits=limits, objectives=(ACCURACY,))
    unseen, deadline = Unseen(problem, {}, seed), time.monotonic() + _SECONDS
    if unseen.find(deadline) is not None or time.monotonic() >= deadline:
        return None
    return unseen.met.explain()
