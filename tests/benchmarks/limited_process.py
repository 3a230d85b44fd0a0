"""Runs one cell of a table in a process of its own, with limits on its time and memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from hw_profiles.errors import InputError
from nas.execution.memory_limits import limit_memory

_GIBIBYTE = 1024**3
_WALL_LIMITS = 4  # a machine with other work gives a process a part of a core

Work = Callable[[], dict[str, Any]]


def run_limited(work: Work, *, seconds: int = 120, gibibytes: int = 8) -> dict[str, Any]:
    """What ``work`` returns, ``outcome`` ``"works"`` beside it unless it says another; or what became of it instead.

    ``outcome`` is else ``"refused"`` (an InputError, whose line is ``reason``), ``"failed"`` (any other error) or
    ``"timed out"``. ``seconds`` are those of the processor, with one thread; four times as many on the clock also end
    it. What ``work`` imports should be imported before: the process is a copy of this one.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, work, seconds, gibibytes))
    start = time.monotonic()
    process.start()
    sender.close()
    found: dict[str, Any] | None = None
    try:
        if receiver.poll(_WALL_LIMITS * seconds):
            found = receiver.recv()
    except EOFError:
        pass
    if found is None and process.is_alive() and time.monotonic() - start >= _WALL_LIMITS * seconds:
        process.kill()
        found = _timed_out(f"{_WALL_LIMITS * seconds} s on the clock")
    process.join()
    if found is None:
        found = _ended(process.exitcode or 0, seconds)
    return {**found, "clock_seconds": round(time.monotonic() - start, 1)}


def _child(sender: Connection, work: Work, seconds: int, gibibytes: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    limit_memory(gibibytes * _GIBIBYTE)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    start = time.process_time()
    try:
        found = {"outcome": "works", **work()}
    except InputError as error:
        found = {"outcome": "refused", "reason": " ".join(str(error).split())[:300]}
    except MemoryError:
        found = {"outcome": "failed", "reason": f"more than {gibibytes} GiB of memory"}
    except Exception as error:
        found = {"outcome": "failed", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    sender.send({**found, "seconds": round(time.process_time() - start, 1)})


def _ended(code: int, seconds: int) -> dict[str, Any]:
    if code in (-9, -24):  # SIGXCPU, or SIGKILL where the soft limit is the hard one
        return _timed_out(f"{seconds} s of the processor")
    return {"outcome": "failed", "reason": f"the process ended with {code}"}


def _timed_out(limit: str) -> dict[str, Any]:
    return {"outcome": "timed out", "reason": f"more than {limit}"}
