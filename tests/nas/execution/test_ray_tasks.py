"""Evaluations as tasks of Ray, started for real: results, failures with their causes, and workers that are killed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import InputError
from nas.execution.executor import EvaluationError
from nas.execution.ray_tasks import RayTasks
from tests.optional_parts import require

Make = Callable[..., RayTasks]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One Ray for all tests: it takes seconds to start."""
    require(importlib.util.find_spec("ray") is not None, "Ray is not installed (pip install 'fitnas[ray]')")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        _node_ip_address="127.0.0.1", _system_config={"memory_monitor_refresh_ms": 0},
    )  # fmt: skip
    yield ray
    ray.shutdown()


@pytest.fixture
def make(ray: Any) -> Iterator[Make]:
    made: list[RayTasks] = []

    def build(evaluate: Any, workers: int = 1, **options: Any) -> RayTasks:
        made.append(RayTasks(evaluate, workers, **options))
        return made[-1]

    yield build
    for executor in made:
        executor.close()
    assert ray.is_initialized()  # it was here before


@pytest.mark.slow
def test_values_come_back_and_the_alternative_is_used(make: Make) -> None:
    def evaluate(candidate: int, fidelity: float) -> float:
        return candidate * fidelity

    evaluate.alternative = lambda candidate, fidelity: -1.0  # type: ignore[attr-defined]
    executor = make(evaluate, 2)
    futures = [executor.submit(i, 0.5) for i in range(6)] + [executor.submit(1, 1.0, alternative=True)]
    assert [future.result() for future in futures] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, -1.0]


@pytest.mark.slow
def test_an_exception_is_a_failure_with_its_cause(make: Make) -> None:
    def evaluate(candidate: int, fidelity: float) -> float:
        raise KeyError("no such width")

    with pytest.raises(EvaluationError, match=r"^KeyError: 'no such width'$") as failed:
        make(evaluate).submit(1, 1.0).result()
    assert failed.value.retry_may_help


@pytest.mark.slow
def test_a_candidate_whose_worker_is_killed_is_tried_again(make: Make, tmp_path: Path) -> None:
    def evaluate(candidate: Path, fidelity: float) -> float:
        try:
            (candidate / "first").touch(exist_ok=False)
        except FileExistsError:
            return 0.75
        (candidate / "pid").write_text(str(os.getpid()))
        time.sleep(60)
        return 0.0

    future = make(evaluate).submit(tmp_path, 1.0)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert future.result(timeout=60) == 0.75


@pytest.mark.slow
def test_a_candidate_that_kills_every_worker_is_a_failure_and_the_next_one_goes_well(
    make: Make, tmp_path: Path
) -> None:
    def evaluate(candidate: str, fidelity: float) -> float:
        if candidate == "fine":
            return 1.0
        with (tmp_path / "calls").open("a") as calls:
            calls.write("x")
        os.abort()

    executor = make(evaluate)
    with pytest.raises(EvaluationError, match="worker died") as failed:
        executor.submit("fatal", 1.0).result(timeout=120)
    assert failed.value.retry_may_help
    assert (tmp_path / "calls").read_text() == "xx"
    assert executor.submit("fine", 1.0).result(timeout=60) == 1.0


@pytest.mark.slow
def test_one_that_hangs_ends_at_the_limit_and_close_ends_all(make: Make) -> None:
    def evaluate(candidate: float, fidelity: float) -> float:
        time.sleep(candidate)
        return 1.0

    executor = make(evaluate, seconds=3.0)
    with pytest.raises(EvaluationError, match="took longer than the limit of 3 s") as late:
        executor.submit(600.0, 1.0).result(timeout=60)
    assert not late.value.retry_may_help
    executor = make(evaluate, 2)
    futures = [executor.submit(600.0, 1.0) for _ in range(2)]
    time.sleep(1)
    executor.close()
    assert not wait(futures, timeout=30).not_done
    for future in futures:
        with pytest.raises(EvaluationError, match="closed"):
            future.result()


@pytest.mark.slow
def test_what_no_machine_has_is_refused(make: Make) -> None:
    with pytest.raises(InputError, match="no machine of Ray has 1 CPUs and 3 GPUs"):
        make(abs, gpus=3.0)


@pytest.mark.slow
def test_what_cannot_be_sent_is_refused(make: Make) -> None:
    lock = __import__("threading").Lock()
    with pytest.raises(InputError, match="evaluate cannot be sent"):
        make(lambda candidate, fidelity: lock)


def test_without_ray_the_error_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'fitnas\[ray\]'"):
        RayTasks(abs, 1)


@pytest.mark.parametrize("options", [{"workers": 0}, {"cpus": -1.0}, {"gpus": float("nan")}, {"seconds": 0}])
def test_numbers_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(options))} must be"):
        RayTasks(abs, **{"workers": 1, **options})


_SCRIPT = """
import sys
import ray
from nas.execution.ray_tasks import RayTasks

def evaluate(candidate, fidelity):
    import os
    return candidate * fidelity, os.getpid()

if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else None
    executor = RayTasks(evaluate, 2, address=address)
    results = [future.result() for future in [executor.submit(i, 0.5) for i in range(4)]]
    executor.close()
    print([value for value, _ in results], len({pid for _, pid in results}), ray.is_initialized())
"""


def _run_script(folder: Path, *arguments: str, **variables: str) -> str:
    (folder / "script.py").write_text(_SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), **variables}
    done = subprocess.run(
        [sys.executable, str(folder / "script.py"), *arguments],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_a_ray_of_its_own_is_started_and_ended(ray: Any, tmp_path: Path) -> None:
    assert _run_script(tmp_path).startswith("[0.0, 0.5, 1.0, 1.5] ")
    assert _run_script(tmp_path).endswith("False\n")


@pytest.mark.slow
def test_a_cluster_that_runs_is_joined(ray: Any, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(InputError, match=f"Ray cannot be reached at '{address}'"), _without_ray(ray):
        RayTasks(abs, 1, address=address)  # nobody listens there yet
    folder = tempfile.mkdtemp(prefix="ray")  # names of sockets must be short
    head = subprocess.Popen(
        [
            Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={address.split(':')[1]}",
            "--node-ip-address=127.0.0.1", "--num-cpus=2", "--include-dashboard=false", f"--temp-dir={folder}",
            "--disable-usage-stats",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not _answers(address):
            time.sleep(0.2)
        assert _run_script(tmp_path, address).startswith("[0.0, 0.5, 1.0, 1.5] ")
    finally:
        head.terminate()  # it ends what it started
        head.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(address: str) -> bool:
    host, port = address.split(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


@contextmanager
def _without_ray(ray: Any) -> Iterator[None]:
    """As in a process that has not started Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "is_initialized", lambda: False)
        yield
