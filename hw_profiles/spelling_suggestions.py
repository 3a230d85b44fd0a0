"""Did-you-mean suggestions for mistyped names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest valid name, or nothing.

    >>> did_you_mean("mobilnet", ["mobilenet", "tiny"])
    "; did you mean 'mobilenet'?"
    """
    near = difflib.get_close_matches(name, list(valid), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
