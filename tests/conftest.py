"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _kept_processes() -> Iterator[None]:
    """Processes are used again from test to test: loading torch takes seconds."""
    from nas.execution.kept_processes import kept_processes

    with kept_processes():
        yield
