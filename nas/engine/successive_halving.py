"""Early stopping of candidates: asynchronous successive halving (1810.05934)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hw_profiles.errors import InputError

_REDUCTION = 3


def promising(accuracy: float, at_this_rung: Sequence[float]) -> bool:
    """Whether an accuracy is among the best third of those at its rung, itself included.

    >>> promising(0.5, [0.5, 0.6]), promising(0.5, [0.5, 0.4, 0.3])
    (False, True)
    """
    places = max(1, len(at_this_rung) // _REDUCTION)
    return accuracy >= sorted(at_this_rung, reverse=True)[places - 1]


def check_rungs(rungs: Sequence[float]) -> tuple[float, ...]:
    """The fidelities, or an InputError: they rise and end at 1.

    >>> check_rungs([0.25, 1])
    (0.25, 1.0)
    """
    checked = tuple(float(rung) for rung in rungs)
    rising = all(a < b for a, b in pairwise(checked))
    if not checked or not rising or checked[0] <= 0 or checked[-1] != 1:
        raise InputError(f"rungs must rise from above 0 to 1, got {tuple(rungs)}")
    return checked
