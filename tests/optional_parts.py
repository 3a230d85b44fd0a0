"""Parts that a test needs and a machine may lack."""

from __future__ import annotations

import os

import pytest


def require(present: bool, missing: str) -> None:
    """Skip with the reason where a part is missing; where everything is required (FITNAS_REQUIRE_ALL=1), fail."""
    if not present and os.environ.get("FITNAS_REQUIRE_ALL") == "1":
        pytest.fail(f"FITNAS_REQUIRE_ALL=1: {missing}")
    if not present:
        pytest.skip(missing)
