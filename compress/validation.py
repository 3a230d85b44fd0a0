"""Checks that an argument is a number in its range."""

from __future__ import annotations

import math
from numbers import Integral, Real


def is_number(value: object, low: float, high: float = math.inf) -> bool:
    """Whether it is a number above ``low`` and below ``high``.

    >>> is_number(0.5, 0, 1), is_number(1, 0, 1), is_number("0.5", 0, 1), is_number(float("nan"), 0)
    (True, False, False, False)
    """
    return isinstance(value, Real) and low < float(value) < high


def is_whole(value: object, least: int, most: float = math.inf) -> bool:
    """Whether it is a whole number of at least ``least`` and at most ``most``.

    >>> is_whole(16, 2), is_whole(1, 2), is_whole(2.5, 2), is_whole("16", 2), is_whole(True, 0)
    (True, False, False, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most
