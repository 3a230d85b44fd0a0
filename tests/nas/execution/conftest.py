"""Tests of processes begin without any."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blocks.custom import REGISTERED_BY
from nas.execution import kept_processes


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kept = kept_processes._Kept(starter=kept_processes._KEPT.starter)
    monkeypatch.setattr(kept_processes, "_KEPT", kept)
    registered = dict(REGISTERED_BY)  # by tests elsewhere, in modules that load torch
    REGISTERED_BY.clear()
    yield
    REGISTERED_BY.update(registered)
    assert kept.idle == []
