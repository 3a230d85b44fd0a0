"""What tests call in a process of its own."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import sys
import time
from typing import Any

from blocks.custom import CUSTOM_BLOCKS
from hw_profiles.errors import InputError
from nas.errors import NothingFitsError


class NotLoadableError(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


ERRORS: dict[str, BaseException] = {
    "input": InputError("--data: no such folder"),
    "nothing fits": NothingFitsError("the smallest takes 2 ms"),
    "bug": KeyError("width"),
    "disk": OSError(errno.ENOSPC, "No space left on device"),
    "interrupted": KeyboardInterrupt(),
    "not loadable": NotLoadableError(1, 2),
}


def fail(name: str) -> None:
    raise ERRORS[name]


def die(how: str) -> str:
    if how == "abort":
        os.abort()
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(3)
    return how


def die_in_part(how: str, show: Any) -> str:
    with show("half") as report:
        report(0.5, "of it")
        return die(how)


def tell(report: Any) -> int:
    for step in range(1, 6):
        report(step / 5, f"step {step}")
    logging.getLogger("fitnas").info("%s steps", 5)
    logging.getLogger("fitnas").debug("not asked for")
    return os.getpid()


def show_bars(labels: list[str], *, show: Any) -> list[str]:
    for label in labels:
        with show(label) as report:
            report(1.0, "done")
    return labels


def hang() -> None:
    print(os.getpid(), flush=True)
    while True:
        time.sleep(0.05)


def threads() -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def process_of(candidate: object, fidelity: float) -> int:
    return os.getpid()


def import_path() -> list[str]:
    return list(sys.path)


def memory_limit() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_DATA)


def custom_blocks() -> list[str]:
    return list(CUSTOM_BLOCKS)
