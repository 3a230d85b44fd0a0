"""Processes that are reused, so that torch is loaded once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from nas.execution.child_process import ChildProcess, Target

_MOST_KEPT = 4


@dataclass(slots=True)
class _Kept:
    users: int = 0
    idle: list[ChildProcess] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    # Linux ends a child with the thread that started it, so those that are kept are started by one that goes on.
    starter: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "starter"))


_KEPT = _Kept()


@contextmanager
def kept_processes() -> Iterator[None]:
    """Inside, a process that has done its work is kept, and takes the next; they are ended when the last user leaves.

    >>> with kept_processes():
    ...     pass
    """
    with _KEPT.lock:
        _KEPT.users += 1
    try:
        yield
    finally:
        with _KEPT.lock:
            _KEPT.users -= 1
            ended = [] if _KEPT.users else _KEPT.idle[:]
            del _KEPT.idle[: len(ended)]
        for child in ended:
            child.close()


def started_child(target: Target) -> ChildProcess:
    """A process that loads the function of ``target``: one that was kept, or a new one."""
    child = _idle_child() or _KEPT.starter.submit(ChildProcess).result()
    child.load(target)
    return child


def _idle_child() -> ChildProcess | None:
    with _KEPT.lock:
        while _KEPT.idle:
            child = _KEPT.idle.pop()
            if child.is_reusable:
                return child
            child.close()
    return None


def end_child(child: ChildProcess) -> None:
    """Keep a process that is done and well where processes are kept; kill any other."""
    with _KEPT.lock:
        keep = _KEPT.users > 0 and len(_KEPT.idle) < _MOST_KEPT and child.is_reusable
        if keep:
            _KEPT.idle.append(child)
    if not keep:
        child.close()
