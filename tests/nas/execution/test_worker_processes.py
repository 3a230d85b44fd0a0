"""A candidate may crash, hang, take all memory or raise: its worker ends, the search goes on."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import InputError
from nas.execution.executor import EvaluationError, Executor
from nas.execution.in_process import InProcess
from nas.execution.worker_processes import WorkerProcesses
from tests.nas.execution.candidates import (
    BreaksWhenLoaded,
    Meeting,
    WithAlternative,
    WithArrays,
    evaluate,
    refuse_to_load,
)

ROOT = Path(__file__).parent.parent.parent.parent
LIMIT = 300_000_000
PATIENCE = 60.0  # seconds that a test waits for what takes a fraction of one
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")


@pytest.fixture(scope="module")
def shared() -> Iterator[WorkerProcesses]:
    with closing(WorkerProcesses(evaluate, threads=3, memory_bytes=LIMIT)) as executor:
        yield executor


@pytest.mark.parametrize("make", [InProcess, WorkerProcesses])
class TestEveryExecutor:
    def test_returns_what_evaluate_returns(self, make: Callable[[Any], Executor]) -> None:
        with closing(make(evaluate)) as executor:
            assert executor.submit("", 0.25).result() == 0.25
            assert math.isnan(executor.submit("not a number", 1.0).result())
            assert executor.workers == 1

    def test_an_exception_is_the_cause(self, make: Callable[[Any], Executor]) -> None:
        with closing(make(evaluate)) as executor:
            with pytest.raises(EvaluationError, match=r"^ValueError: no such width$") as caught:
                executor.submit("raise", 1.0).result()
            assert caught.value.retry_may_help
            assert executor.submit("", 0.5).result() == 0.5

    def test_the_alternative_is_used_where_it_is_asked_for(self, make: Callable[[Any], Executor]) -> None:
        with closing(make(WithAlternative())) as executor:
            assert executor.submit("", 1.0).result() == "usual"
            assert executor.submit("", 1.0, alternative=True).result() == "alternative"

    def test_without_an_alternative_the_usual_way_is_taken(self, make: Callable[[Any], Executor]) -> None:
        with closing(make(evaluate)) as executor:
            assert executor.submit("", 0.5, alternative=True).result() == 0.5


def test_ctrl_c_in_this_process_is_no_failed_evaluation() -> None:
    def interrupted(candidate: Any, fidelity: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InProcess(interrupted).submit("", 1.0)


@pytest.mark.parametrize(
    ("candidate", "cause", "retry_may_help"),
    [
        ("abort", r"^the worker was killed by signal 6 \(aborted\)$", True),
        ("killed", r"^the worker was killed by signal 9 \(probably out of memory\)$", False),
        ("exit 3", "^the worker exited with code 3$", True),
        ("exit 0", "^the worker exited with code 0$", True),
        ("sys.exit", "^SystemExit: 4$", True),
        ("not to be pickled", "^AttributeError: Can't (get|pickle) local object", True),
        pytest.param("allocate", r"^out of memory \(limit 0\.3 GB\): MemoryError", False, marks=linux),
        ("large array", r"^out of memory \(limit 0\.3 GB\): .*Unable to allocate 8\.00 TiB", False),
    ],
)
def test_what_ends_an_evaluation_is_told_and_the_next_one_goes_well(
    shared: WorkerProcesses, candidate: str, cause: str, retry_may_help: bool
) -> None:
    with pytest.raises(EvaluationError, match=cause) as caught:
        shared.submit(candidate, 1.0).result(PATIENCE)
    assert type(caught.value) is EvaluationError
    assert caught.value.retry_may_help == retry_may_help
    assert shared.submit("", 0.5).result(PATIENCE) == 0.5


def test_the_place_of_a_crash_is_known(shared: WorkerProcesses) -> None:
    error = shared.submit("abort", 1.0).exception(PATIENCE)
    assert isinstance(error, EvaluationError)
    assert "in _abort" in str(error.__cause__)


def test_a_worker_is_kept_until_it_dies(shared: WorkerProcesses) -> None:
    first = shared.submit("process", 1.0).result()
    assert isinstance(shared.submit("raise", 1.0).exception(), EvaluationError)
    assert shared.submit("process", 1.0).result() == first != os.getpid()
    assert shared.submit("abort", 1.0).exception() is not None
    assert shared.submit("process", 1.0).result() != first


def test_a_worker_has_its_number_of_threads(shared: WorkerProcesses) -> None:
    assert shared.submit("threads", 1.0).result() == "3"


def test_an_evaluation_that_takes_too_long_is_ended() -> None:
    with closing(WorkerProcesses(evaluate, seconds=0.3)) as executor:
        slow, after = executor.submit("hang", 1.0), executor.submit("", 0.5)
        with pytest.raises(EvaluationError, match=r"^took longer than the limit of 0\.3 s$") as caught:
            slow.result(PATIENCE)
        assert not caught.value.retry_may_help
        assert after.result(PATIENCE) == 0.5


def test_a_worker_that_cannot_answer_any_more_is_replaced(shared: WorkerProcesses) -> None:
    error = shared.submit("close descriptors", 1.0).exception(PATIENCE)
    assert isinstance(error, EvaluationError)
    assert str(error) == "the worker exited with code 1"
    assert shared.submit("", 0.5).result(PATIENCE) == 0.5


def test_a_crash_touches_no_other_worker(tmp_path: Path) -> None:
    with closing(WorkerProcesses(Meeting(tmp_path, 2), 2)) as executor:
        crash, other = executor.submit("abort", 1.0), executor.submit("well", 0.5)
        assert isinstance(crash.exception(PATIENCE), EvaluationError)
        assert other.result(PATIENCE) == 0.5


def test_warnings_are_filtered_as_in_this_process() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with closing(WorkerProcesses(evaluate)) as executor:
            error = executor.submit("warn", 1.0).exception()
    assert str(error) == "UserWarning: careful"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda candidate, fidelity: 0.5, "^evaluate cannot be sent to another process .*: define its functions and"),
        (open(os.devnull).read, "^evaluate cannot be sent to another process"),  # noqa: SIM115, PTH123
    ],
)
def test_what_cannot_be_pickled_is_refused_at_once(wrong: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        WorkerProcesses(wrong)


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"workers": 1.5}, {"threads": 0}, {"memory_bytes": -1}, {"seconds": 0}]
)
def test_impossible_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(wrong))} must be"):
        WorkerProcesses(evaluate, **wrong)


@pytest.mark.parametrize(
    ("how", "argument", "said"),
    [
        (refuse_to_load, "no module there", r"cannot be loaded in a worker process \(ImportError: no module there\)"),
        (os._exit, 7, "^a worker process exited with code 7 while it loaded evaluate, 3 times in a row"),
    ],
)
def test_an_evaluate_that_no_worker_can_load_is_an_error_of_the_input(how: Any, argument: Any, said: str) -> None:
    with closing(WorkerProcesses(BreaksWhenLoaded(how, argument))) as executor:
        for _ in range(2):
            with pytest.raises(InputError, match=said):
                executor.submit("", 1.0).result(PATIENCE)


def test_large_arrays_are_mapped_and_not_copied(tmp_path: Path) -> None:
    cached = np.memmap(tmp_path / "cache.u8", np.uint8, "w+", shape=(2 << 20,))
    cached[:] = 1
    private = np.memmap(tmp_path / "cache.u8", np.uint8, "c", shape=(2 << 20,))
    private[:] = 3
    fixed = np.full(1 << 20, 2.0)
    fixed.flags.writeable = False
    arrays = {
        "large": np.ones(1 << 20),
        "fixed": fixed,
        "small": np.ones(10),
        "cached": cached,
        "view": cached[5:],
        "private": private,
        "by columns": np.asfortranarray(np.ones((1024, 1024))),
    }
    with closing(WorkerProcesses(WithArrays(**arrays))) as executor:
        folder = executor._pool.target.folder
        assert executor._pool.target.path.stat().st_size < 10_000
        assert len(list(folder.glob("*.npy"))) == 5  # neither the small one nor the one that is a file already
        for name, array in arrays.items():
            mapped, writeable, total = executor.submit(name, 1.0).result(PATIENCE)
            assert mapped == (name != "small")
            assert writeable == array.flags.writeable
            assert total == array.sum()
            assert array.any()  # what a worker writes is its own
        assert cached.sum() == 2 << 20
    assert not folder.exists()


def test_an_array_that_is_there_twice_is_written_once() -> None:
    array = np.ones(1 << 20)
    with closing(WorkerProcesses(WithArrays(a=array, b=array))) as executor:
        assert len(list(executor._pool.target.folder.glob("*.npy"))) == 1


@linux
def test_mapped_arrays_do_not_count_as_memory_of_the_worker() -> None:
    array = np.ones(LIMIT // 8)
    with closing(WorkerProcesses(WithArrays(a=array), memory_bytes=LIMIT)) as executor:
        assert executor.submit("a", 1.0).result(PATIENCE) == (True, True, array.sum())


def test_close_ends_what_is_going_on() -> None:
    executor = WorkerProcesses(evaluate)
    worker = executor.submit("process", 1.0).result()
    running, waiting = executor.submit("hang", 1.0), executor.submit("", 1.0)
    folder = executor._pool.target.folder
    executor.close()
    executor.close()
    assert not wait([running, waiting], PATIENCE).not_done
    for future in (running, waiting):
        assert isinstance(future.exception(), EvaluationError)
    assert not alive(worker)
    assert not folder.exists()
    with pytest.raises(RuntimeError, match="the executor is closed"):
        executor.submit("", 1.0)


def test_an_executor_that_is_dropped_is_closed() -> None:
    executor = WorkerProcesses(evaluate)
    worker = executor.submit("process", 1.0).result()
    del executor
    await_end(worker)


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and waits for its parent to notice does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return state.stdout.strip() != "" and not state.stdout.startswith("Z")


def await_end(process: int) -> None:
    end = time.monotonic() + PATIENCE
    while alive(process):
        assert time.monotonic() < end, "the worker is still there"
        time.sleep(0.05)


HANGS = """
from nas.execution.worker_processes import WorkerProcesses
from tests.nas.execution.candidates import evaluate

executor = WorkerProcesses(evaluate, 1)
try:
    print(executor.submit("process", 1.0).result(), flush=True)
    executor.submit("{candidate}", 1.0).result()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def started(script: Path, text: str) -> subprocess.Popen[str]:
    script.write_text(text)
    return subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(script.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("candidate", ["hang", pytest.param("hold the interpreter", marks=linux)])
def test_workers_end_with_their_parent(candidate: str, tmp_path: Path) -> None:
    with started(tmp_path / "script.py", HANGS.format(candidate=candidate)) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        time.sleep(0.2)  # until the worker is at it: it cannot say so
        assert alive(worker)
        parent.kill()
        await_end(worker)


def test_ctrl_c_in_a_terminal_ends_all_without_a_word_of_the_workers(tmp_path: Path) -> None:
    with started(tmp_path / "script.py", HANGS.format(candidate="hang")) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does, to all processes in it
        out, err = parent.communicate(timeout=PATIENCE)
        assert (parent.returncode, out, err) == (0, "interrupted\n", "")
        await_end(worker)


IMPORTED = "from tests.nas.execution.candidates import evaluate"
DEFINED = "def evaluate(candidate, fidelity):\n    return fidelity"
SCRIPT = """
from contextlib import closing
from nas.execution.worker_processes import WorkerProcesses
{evaluate}
print("loaded")
{guard}
    with closing(WorkerProcesses(evaluate)) as executor:
        print(executor.submit("", 0.5).result())
"""


@pytest.mark.parametrize(
    ("evaluate", "guard", "out", "said"),
    [
        (IMPORTED, "if True:", ["loaded", "0.5"], ""),
        (DEFINED, 'if __name__ == "__main__":', ["loaded", "loaded", "0.5"], ""),
        (DEFINED, "if True:", ["loaded", "loaded"], 'put what it does under `if __name__ == "__main__":`'),
    ],
    ids=["without a guard", "with a guard", "defined without a guard"],
)
def test_scripts(tmp_path: Path, evaluate: str, guard: str, out: list[str], said: str) -> None:
    text = SCRIPT.format(evaluate=evaluate, guard=guard)
    with started(tmp_path / "script.py", text) as script:
        found, err = script.communicate(timeout=PATIENCE)
    # What a worker prints comes out at stderr: stdout is for the data of the parent.
    assert sorted(found.split() + [line for line in err.splitlines() if line == "loaded"]) == sorted(out)
    assert found.count("loaded") == 1
    assert said in err
    assert (script.returncode == 0) == (not said)


def test_a_function_of_an_interactive_session_is_refused() -> None:
    text = f"{DEFINED}\nfrom nas.execution.worker_processes import WorkerProcesses\nWorkerProcesses(evaluate)"
    run = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "InputError: evaluate is defined in an interactive session" in run.stderr


def test_a_worker_loads_torch_only_where_evaluate_does() -> None:
    text = "import sys\nimport nas.execution.worker_processes\nimport nas.execution.shielded\nprint('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
