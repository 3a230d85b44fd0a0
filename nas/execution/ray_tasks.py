"""Evaluates candidates as tasks of Ray, on this machine or on a cluster."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from compress.argument_checks import is_number, is_whole
from hw_profiles.errors import InputError
from nas.execution.executor import EvaluationError, shortest
from nas.execution.in_process import Evaluate, way_of

log = logging.getLogger("fitnas")

_ATTEMPTS = 2  # at one call whose worker died: it may not have been the candidate that killed it
_CANCEL_SECONDS = 0.2  # until a task is cancelled again: Ray loses that of one whose worker is just starting
_CONNECT_SECONDS = 10
_DIED = "its Ray worker died: it was killed, or crashed in native code"


class RayTasks:
    """Evaluates up to ``workers`` candidates at a time, each as a task of Ray with ``cpus`` and ``gpus``.

    Without ``address`` a Ray of its own is started on this machine, reachable from nowhere else, or one that this
    process has started is used; ``"auto"`` or ``"HOST:PORT"`` join a cluster, on whose machines this package must be
    installed. ``evaluate`` is sent once. A task whose worker or machine died is tried once more, so a candidate that
    kills every worker ends as a failure; ``seconds`` limits one evaluation, waiting for a free worker included.

    Raises:
        InputError: Ray is not installed, cannot be reached or started, has no machine with so many CPUs and GPUs, or
            ``evaluate`` cannot be sent.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        workers: int,
        *,
        address: str | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
        seconds: float | None = None,
    ) -> None:
        _check(workers, cpus, gpus, seconds)
        self.workers, self._seconds = workers, seconds
        self._ray = _imported()
        self._starts = self._connect(address, cpus, gpus)
        self._lock = threading.Lock()
        self._closed = False
        self._tasks: set[Any] = set()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="ray task")
        try:
            self._evaluate = self._sent(evaluate)
            self._check_resources(cpus, gpus)
        except BaseException:
            self.close()
            raise
        # Ray's own trying again has no limit where a worker ran out of memory.
        self._task = self._ray.remote(_evaluated).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)

    def submit(
        self, candidate: Any, fidelity: float, *, alternative: bool = False, seconds: float | None = None
    ) -> Future[Any]:
        """Begin an evaluation; the future holds what ``evaluate`` returned, or raises :class:`EvaluationError`.

        The shorter of ``seconds`` and the limit that the executor was made with holds.
        """
        return self._threads.submit(self._result, candidate, fidelity, alternative, shortest(seconds, self._seconds))

    def close(self) -> None:
        """Kill the tasks that go on, and end Ray where this executor has started it."""
        with self._lock:
            self._closed = True
        while tasks := self._running():
            for task in tasks:
                self._ray.cancel(task, force=True)
            time.sleep(_CANCEL_SECONDS)
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._starts and self._ray.is_initialized():
            self._ray.shutdown()
        self._starts = False

    def _result(self, candidate: Any, fidelity: float, alternative: bool, seconds: float | None) -> Any:
        errors = self._ray.exceptions
        died = (errors.WorkerCrashedError, errors.NodeDiedError, errors.LocalRayletDiedError, errors.ObjectLostError)
        for attempt in range(1, _ATTEMPTS + 1):
            task = self._begun(candidate, fidelity, alternative)
            try:
                return self._ray.get(task, timeout=seconds)
            except errors.GetTimeoutError:
                self._ray.cancel(task, force=True)
                raise EvaluationError(f"took longer than the limit of {seconds:g} s") from None
            except errors.TaskCancelledError:
                raise EvaluationError("the executor was closed") from None
            except errors.OutOfMemoryError:
                raise EvaluationError("out of memory on its machine", retry_may_help=True) from None
            except errors.RayTaskError as error:
                raise EvaluationError(_cause(error), retry_may_help=True) from error
            except died as error:
                if self._closed:
                    raise EvaluationError("the executor was closed") from None
                if attempt == _ATTEMPTS:
                    raise EvaluationError(_DIED, retry_may_help=True) from error
                log.warning("a Ray worker died; retrying its candidate")
            except errors.RayError as error:
                raise EvaluationError(f"{type(error).__name__}: {_first_line(error)}") from error
            finally:
                with self._lock:
                    self._tasks.discard(task)
        raise AssertionError("the last attempt returns or raises")

    def _running(self) -> list[Any]:
        with self._lock:
            return list(self._tasks)

    def _begun(self, candidate: Any, fidelity: float, alternative: bool) -> Any:
        with self._lock:
            if self._closed:
                raise EvaluationError("the executor was closed")
            task = self._task.remote(self._evaluate, candidate, fidelity, alternative)
            self._tasks.add(task)
        return task

    def _connect(self, address: str | None, cpus: float, gpus: float) -> bool:
        """Whether Ray was started or joined here, and so is to be left here."""
        if self._ray.is_initialized():
            return False
        options: dict[str, Any] = {"address": address}
        if address is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            options = {
                "address": "local",
                "num_cpus": math.ceil(self.workers * cpus),
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
            }
        else:
            _check_reachable(address)
        try:
            self._ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **options)
        except (ConnectionError, ValueError, RuntimeError, self._ray.exceptions.RayError) as error:
            where = "be started" if address is None else f"be reached at {address!r}"
            raise InputError(f"Ray cannot {where}: {_first_line(error)}") from error
        return True

    def _check_resources(self, cpus: float, gpus: float) -> None:
        """A task that no machine can take would wait for ever."""
        machines = [node.get("Resources", {}) for node in self._ray.nodes() if node["Alive"]]
        if not any(has.get("CPU", 0) >= cpus and has.get("GPU", 0) >= gpus for has in machines):
            there = "; ".join(f"{has.get('CPU', 0):g} CPUs, {has.get('GPU', 0):g} GPUs" for has in machines)
            raise InputError(f"no machine of Ray has {cpus:g} CPUs and {gpus:g} GPUs for a task; there are: {there}")

    def _sent(self, evaluate: Evaluate) -> Any:
        try:
            return self._ray.put(evaluate)
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"evaluate cannot be sent to Ray's workers: {_first_line(error)}") from error


def _evaluated(evaluate: Evaluate, candidate: Any, fidelity: float, alternative: bool) -> Any:
    """What a task does."""
    return way_of(evaluate, alternative=alternative)(candidate, fidelity)


def _imported() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise InputError("Ray is not installed: pip install 'fitnas[ray]'") from None
    return ray


def _check(workers: int, cpus: float, gpus: float, seconds: float | None) -> None:
    if not is_whole(workers, 1):
        raise InputError(f"workers must be a whole number of at least 1, got {workers!r}")
    for name, value in (("cpus", cpus), ("gpus", gpus)):
        if value != 0 and not is_number(value, 0):
            raise InputError(f"{name} must be a number of at least 0, got {value!r}")
    if seconds is not None and not is_number(seconds, 0):
        raise InputError(f"seconds must be a number above 0 or None, got {seconds!r}")


def _check_reachable(address: str) -> None:
    """Ray itself tries for two minutes, and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"Ray cannot be reached at {address!r}: {error}") from None


def _cause(error: Any) -> str:
    """What ``evaluate`` raised, as it would be written in this process."""
    cause = error.cause
    return f"{type(cause).__name__}: {cause}".rstrip(": ")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
