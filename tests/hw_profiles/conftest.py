"""What all tests of this folder need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Linear algebra on small matrices: on a busy machine its threads wait for each other ten times as long."""
    with threadpool_limits(limits=1):
        yield
