"""Checks that an argument is a number in its range."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TypeGuard

LARGEST_SEED = 2**32 - 1  # what every generator that is seeded by it takes


def is_number(value: object, low: float, high: float = math.inf) -> TypeGuard[float]:
    """Whether it is a number above ``low`` and below ``high``.

    >>> is_number(0.5, 0, 1), is_number(1, 0, 1), is_number("0.5", 0, 1), is_number(float("nan"), 0), is_number(True, 0)
    (True, False, False, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and bool(value < high) and not value <= low


def is_within(value: object, low: float, high: float = math.inf) -> bool:
    """Whether it is a finite number of at least ``low`` and at most ``high``.

    >>> is_within(0, 0, 1), is_within(1, 0, 1), is_within(1.5, 0, 1), is_within(math.inf, 0), is_within(False, 0)
    (True, True, False, False, False)
    """
    return is_number(value, -math.inf) and low <= value <= high


def is_whole(value: object, least: int, most: float = math.inf) -> bool:
    """Whether it is a whole number of at least ``least`` and at most ``most``.

    >>> is_whole(16, 2), is_whole(1, 2), is_whole(2.5, 2), is_whole("16", 2), is_whole(True, 0)
    (True, False, False, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most
