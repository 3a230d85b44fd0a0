"""Workers that reach the database through Optuna's gRPC proxy."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import optuna
import pytest

import nas
from nas.storages.open_storage import open_storage
from nas.storages.patient_storage import PatientStorage
from tests.optional_parts import require

SERVER = """
import sys, optuna
storage = optuna.storages.RDBStorage(f"sqlite:///{sys.argv[1]}")
optuna.storages.run_grpc_proxy_server(storage, host="127.0.0.1", port=int(sys.argv[2]))
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]], list[str]]]:
    """Its address, the running server, and the command that starts another."""
    require(importlib.util.find_spec("grpc") is not None, "grpcio is not installed")
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(tmp_path / "study.db"), str(port)]
    servers = [subprocess.Popen(command)]
    try:
        yield f"grpc://127.0.0.1:{port}", servers, command
    finally:
        for server in servers:
            server.kill()
            server.wait()


def space(trial: Any) -> int:
    number: int = trial.suggest_int("x", 0, 30)
    return number


def search(address: str, n_trials: int, **how: Any) -> optuna.Study:
    return nas.search(
        space, lambda x, fidelity: x / 30, cost=lambda x: {"size": float(x)}, budget={"size": 20}, n_trials=n_trials,
        storage=address, study_name="s", sampler="random", **how,
    )  # fmt: skip


def test_a_search_through_the_proxy_is_kept_and_goes_on(proxy: Any) -> None:
    address, *_ = proxy
    assert isinstance(open_storage(address), PatientStorage)
    study = search(address, 5)
    assert nas.winner(study) == max(trial.value for trial in study.trials if trial.value is not None) * 30
    assert len([trial for trial in search(address, 9).trials if trial.value is not None]) == 9


@pytest.mark.slow
def test_a_proxy_that_is_away_for_a_while_is_waited_for(proxy: Any, caplog: pytest.LogCaptureFixture) -> None:
    address, servers, command = proxy
    seen: list[int] = []

    def stop_in_the_middle(study: optuna.Study) -> None:
        seen.append(1)
        if len(seen) == 3:
            servers[0].kill()
            servers[0].wait()
            Timer(4, lambda: servers.append(subprocess.Popen(command))).start()

    study = search(address, 6, on_trial=stop_in_the_middle)
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len(complete) == 6
    assert "is not responding; waiting" in caplog.text
    assert "is responding again" in caplog.text
