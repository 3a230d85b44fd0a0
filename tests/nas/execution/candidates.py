"""What tests let worker processes evaluate: a candidate is the name of what happens. Loaded without torch."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _abort() -> None:
    os.abort()


def _allocate() -> None:
    held = []
    while True:
        held.append(bytearray(1 << 20))


def _large_array() -> None:
    np.ones(1 << 40)


def _killed() -> None:
    os.kill(os.getpid(), 9)


def _raise() -> None:
    raise ValueError("no such width")


def _hang() -> None:
    while True:
        time.sleep(0.05)


def _close_descriptors() -> None:
    os.closerange(3, 64)
    threading.Thread(target=_hang).start()  # the process would wait for it


def _hold_the_interpreter() -> None:
    """As native code that never comes back: no other thread of the process runs."""
    ctypes.PyDLL(None).sleep(600)


def _warn() -> None:
    warnings.warn("careful", UserWarning, stacklevel=1)


BEHAVIORS: dict[str, Any] = {
    "abort": _abort,
    "allocate": _allocate,
    "large array": _large_array,
    "killed": _killed,
    "exit 0": lambda: os._exit(0),
    "exit 3": lambda: os._exit(3),
    "sys.exit": lambda: sys.exit(4),
    "raise": _raise,
    "not a number": lambda: math.nan,
    "not to be pickled": lambda: lambda: None,
    "hang": _hang,
    "warn": _warn,
    "process": os.getpid,
    "threads": lambda: os.environ["OMP_NUM_THREADS"],
    "close descriptors": _close_descriptors,
    "hold the interpreter": _hold_the_interpreter,
}


def evaluate(candidate: str, fidelity: float) -> Any:
    return BEHAVIORS[candidate]() if candidate in BEHAVIORS else fidelity


class Meeting:
    """Evaluations that go on only once so many of them are at work."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def __call__(self, candidate: str, fidelity: float) -> Any:
        (self.folder / candidate).touch()
        while len(list(self.folder.iterdir())) < self.count:
            time.sleep(0.01)
        return evaluate(candidate, fidelity)


class WithAlternative:
    def __call__(self, candidate: str, fidelity: float) -> str:
        return "usual"

    def alternative(self, candidate: str, fidelity: float) -> str:
        return "alternative"


class WithArrays:
    """Tells of one of its arrays whether it is mapped and may be written to, and its sum; then it writes there if so."""

    def __init__(self, **arrays: NDArray[Any]) -> None:
        self.arrays = arrays

    def __call__(self, candidate: str, fidelity: float) -> tuple[bool, bool, float]:
        array = self.arrays[candidate]
        total = float(array.sum())
        writeable = array.flags.writeable
        if writeable:
            array[:] = 0
        base: Any = array
        while isinstance(base, np.ndarray) and base.base is not None:
            base = base.base
        return isinstance(base, mmap.mmap), writeable, total


class BreaksWhenLoaded:
    """``how`` is called with its argument when this is unpickled."""

    def __init__(self, how: Any, argument: Any) -> None:
        self.how, self.argument = how, argument

    def __reduce__(self) -> Any:
        return self.how, (self.argument,)

    def __call__(self, candidate: str, fidelity: float) -> float:
        return fidelity


def refuse_to_load(text: str) -> None:
    raise ImportError(text)
