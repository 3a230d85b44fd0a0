"""Evaluates candidates in processes of their own, which are reused from one candidate to the next."""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import dataclass, field
from signal import SIGKILL
from typing import Any

from compress.argument_checks import is_number, is_whole
from hw_profiles.errors import InputError
from nas.execution.child_main import Call, Logged, Raised, Ready, Returned, Unloadable
from nas.execution.child_process import (
    ChildDiedError,
    ChildProcess,
    InTheChildError,
    Target,
    packed_for_child,
    prepared,
)
from nas.execution.executor import EvaluationError, shortest
from nas.execution.feedback import log_again
from nas.execution.in_process import Evaluate, way_of
from nas.execution.kept_processes import end_child, started_child
from nas.execution.memory_limits import fair_share
from nas.execution.temporary_folder import TemporaryFolder

_MOST_STARTS = 3  # that end before a worker is ready, one after the other


class WorkerProcesses:
    """Evaluates up to ``workers`` candidates at a time, each in a process that may die without harm to others.

    ``evaluate`` must be one that can be pickled. Large arrays in it are mapped from files, so each is in memory once.
    ``threads`` is for each worker, by default an equal part of the processors; ``memory_bytes`` likewise, by default
    an equal part of 80% of the free memory; ``seconds`` limits one evaluation.

    A future raises :class:`EvaluationError` where ``evaluate`` raised, took too long or too much memory, or ended its
    process, which is then replaced. It raises an InputError where ``evaluate`` cannot be loaded in another process:
    then no other candidate could be evaluated either.

    Raises:
        InputError: ``evaluate`` cannot be pickled, or a number that cannot be.

    >>> executor = WorkerProcesses(pow, workers=1)
    >>> executor.submit(3, 2).result()
    9
    >>> executor.close()
    """

    def __init__(
        self,
        evaluate: Evaluate,
        workers: int = 1,
        *,
        threads: int | None = None,
        memory_bytes: int | None = None,
        seconds: float | None = None,
    ) -> None:
        for name, value in (("workers", workers), ("threads", threads), ("memory_bytes", memory_bytes)):
            if value is not None and not is_whole(value, 1):
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
        if seconds is not None and not is_number(seconds, 0):
            raise InputError(f"seconds must be a number above 0 or None, got {seconds!r}")
        self.workers = workers
        folder = TemporaryFolder()
        try:
            target = prepared(
                _Way(evaluate),
                "evaluate",
                folder.path,
                threads=threads or max(1, available_cores() // workers),
                memory_bytes=memory_bytes or fair_share(workers),
            )
        except BaseException:
            folder.cleanup()
            raise
        self._seconds = seconds
        self._pool = _Pool(target, folder)
        self._close = weakref.finalize(self, self._pool.close)  # also at the end of the interpreter

    def submit(
        self, candidate: Any, fidelity: float, *, alternative: bool = False, seconds: float | None = None
    ) -> Future[Any]:
        """Begin an evaluation; the future holds what ``evaluate`` returned, or raises :class:`EvaluationError`.

        The shorter of ``seconds`` and the limit that the executor was made with holds.
        """
        packed = packed_for_child(((candidate, fidelity, alternative), {}), "the candidate")
        return self._pool.submit(Call(packed), self.workers, shortest(seconds, self._seconds))

    def close(self) -> None:
        """Kill the workers, whatever they do, and remove the files; what was not done raises EvaluationError."""
        self._close()


def available_cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Way:
    """``evaluate``, or its alternative."""

    evaluate: Evaluate

    def __call__(self, candidate: Any, fidelity: float, alternative: bool) -> Any:
        return way_of(self.evaluate, alternative=alternative)(candidate, fidelity)


_Task = tuple[Future[Any], Call, float | None]  # with the seconds that it may take


@dataclass(slots=True)
class _Pool:
    """The part that threads hold on to; one thread looks after one worker."""

    target: Target
    folder: TemporaryFolder
    tasks: queue.SimpleQueue[_Task | None] = field(default_factory=queue.SimpleQueue)
    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: list[threading.Thread] = field(default_factory=list)
    children: set[ChildProcess] = field(default_factory=set)
    broken: Exception | None = None
    closed: bool = False

    def submit(self, call: Call, workers: int, seconds: float | None) -> Future[Any]:
        future: Future[Any] = Future()
        with self.lock:
            if self.closed:
                raise RuntimeError("the executor is closed")
            if len(self.threads) < workers:
                self.threads.append(threading.Thread(target=self._look_after_a_worker, daemon=True))
                self.threads[-1].start()
            self.tasks.put((future, call, seconds))
        return future

    def close(self) -> None:
        with self.lock:
            if self.closed:
                return
            self.closed = True
            for child in self.children:
                if child.busy:
                    child.kill()
        for _ in self.threads:
            self.tasks.put(None)
        for thread in self.threads:
            if thread is not threading.current_thread():  # an executor that is dropped may be collected in any thread
                thread.join()
        self.folder.cleanup()

    def _look_after_a_worker(self) -> None:
        child: ChildProcess | None = None
        while (task := self.tasks.get()) is not None:
            future, call, seconds = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                child = child or self._started()
                future.set_result(self._evaluated(child, call, seconds))
            except Exception as error:
                future.set_exception(error)
                if child is not None and child.spent:
                    self._end(child)
                    child = None
        if child is not None:
            self._end(child)

    def _started(self) -> ChildProcess:
        for attempt in range(_MOST_STARTS):
            with self.lock:
                if self.broken is not None:
                    raise self.broken
                if self.closed:
                    raise EvaluationError("cancelled: the search ended")
                child = started_child(self.target)
                self.children.add(child)
            try:
                self._await_ready(child)
            except ChildDiedError as error:
                self._end(child)
                if attempt == _MOST_STARTS - 1 and not self.closed:
                    self.broken = InputError(
                        f"a worker process {error} while it loaded evaluate, {_MOST_STARTS} times in a row"
                        f"{_hint(error)}: import it in a fresh Python process to see why"
                    )
            except BaseException:
                self._end(child)
                raise
            else:
                return child
        raise self.broken or EvaluationError("cancelled: the search ended")

    def _await_ready(self, child: ChildProcess) -> None:
        message = _answer(child, None)
        if isinstance(message, Unloadable):
            self.broken = InputError(
                f"evaluate cannot be loaded in a worker process ({message.text}): "
                "its module must be one that another process can import"
            )
            raise self.broken
        assert isinstance(message, Ready)

    def _evaluated(self, child: ChildProcess, call: Call, seconds: float | None) -> Any:
        with self.lock:
            if self.closed:  # what is begun after that nobody would end
                raise EvaluationError("cancelled: the search ended")
            child.call(call)
        try:
            message = _answer(child, None if seconds is None else time.monotonic() + seconds)
        except TimeoutError:
            child.spent = True
            raise EvaluationError(f"took longer than the limit of {seconds:g} s") from None
        except ChildDiedError as error:
            child.spent = True
            if self.closed:
                raise EvaluationError("cancelled: the search ended") from None
            # What the kernel ended for its memory it would end again.
            retry_may_help = error.returncode != -SIGKILL
            failure = EvaluationError(f"the worker {error}", retry_may_help=retry_may_help)
            raise failure from InTheChildError(error.last_words)
        if isinstance(message, Raised):
            raise self._failure(message, child) from InTheChildError(message.traceback)
        assert isinstance(message, Returned)
        try:
            return message.packed.load()
        except Exception as error:
            raise EvaluationError(f"{type(error).__name__}: {error}") from error

    def _failure(self, message: Raised, child: ChildProcess) -> EvaluationError:
        if message.out_of_memory:
            child.spent = True  # what it still holds nobody knows
            limit = (self.target.memory_bytes or 0) / 1e9
            return EvaluationError(f"out of memory (limit {limit:.1f} GB): {' '.join(message.text.split())}")
        return EvaluationError(message.text, retry_may_help=True)

    def _end(self, child: ChildProcess) -> None:
        with self.lock:
            self.children.discard(child)
        end_child(child)


def _hint(error: ChildDiedError) -> str:
    lines = error.last_words.strip().splitlines()
    return f" ({lines[-1]})" if lines else ""


def _answer(child: ChildProcess, deadline: float | None) -> Any:
    while isinstance(message := child.receive(deadline), Logged):
        log_again(message)
    return message
