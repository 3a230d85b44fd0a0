"""The folder of a finished run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from compress.atomic_files import write_json
from tests.nas.report.pages import metrics_of, study_of


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    study_of(6, folder / "study.db")
    write_json(folder / "metrics.json", metrics_of(["a", "b"], latency_ms=2.5) | {"seconds": 90.0})
    return folder


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished_once, tmp_path, dirs_exist_ok=True))
