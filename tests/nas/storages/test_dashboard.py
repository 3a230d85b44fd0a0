"""What optuna-dashboard serves of a study that was described."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import optuna
import pytest

from nas.storages.dashboard import describe
from nas.storages.open_storage import open_storage
from tests.optional_parts import require


@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_the_dashboard_shows_names_note_and_networks(tmp_path: Path, name: str) -> None:
    require(importlib.util.find_spec("optuna_dashboard") is not None, "optuna-dashboard is not installed")
    storage = open_storage(tmp_path / name)
    study = optuna.create_study(storage=storage, study_name="search", directions=["maximize", "minimize"])
    note = "# digits\n\n" + "long " * 1000
    describe(study, ["accuracy", "latency_ms"], note)
    describe(study, ["accuracy", "latency_ms"], "of a worker that joined later")
    trial = study.ask()
    trial.set_user_attr("network", "stem conv 3x3 8 | linear 10")
    study.tell(trial, [0.9, 0.1])
    shown = _served(storage, f"/api/studies/{study._study_id}")
    assert shown["objective_names"] == ["accuracy", "latency_ms"]
    assert shown["note"]["body"] == note
    assert {"key": "network", "value": "stem conv 3x3 8 | linear 10"} in shown["trials"][0]["user_attrs"]


def _served(storage: optuna.storages.BaseStorage, path: str) -> Any:
    from optuna_dashboard import wsgi

    environment = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "after=0", "SERVER_NAME": "localhost",
        "SERVER_PORT": "80", "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(), "wsgi.url_scheme": "http",
    }  # fmt: skip
    return json.loads(b"".join(wsgi(storage)(environment, lambda *_: lambda data: None)))
