"""Parameters of which `make test` runs some, and `make test-all` the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def quick(values: Iterable[Any], chosen: Collection[Any]) -> list[Any]:
    """All values, those that are not among the chosen ones marked as slow; a tuple is one value for each argument."""
    return [value if value in chosen else slow(value) for value in values]


def slow(value: Any) -> Any:
    """One value that is marked as slow."""
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
