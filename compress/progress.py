"""Progress bars that estimate the time left for one phase and for the whole run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm import tqdm

Report = Callable[[float, str], None]
Listener = Callable[[str, float, str], None]
_TERMINAL = "{desc:<22} {percentage:3.0f}%|{bar:24}| {elapsed}, {remaining} left {postfix}"
_end_of_all: ContextVar[float | None] = ContextVar("end_of_all", default=None)
_hidden: ContextVar[bool] = ContextVar("hidden", default=False)
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def whole_work(seconds: float | None) -> Iterator[None]:
    """Every bar within shows how much is left of ``seconds``; with None the bars do not show it.

    >>> with whole_work(60.0), progress("a part") as report:
    ...     report(0.5)
    """
    token = _end_of_all.set(None if seconds is None else time.monotonic() + seconds)
    try:
        yield
    finally:
        _end_of_all.reset(token)


@contextmanager
def no_progress() -> Iterator[None]:
    """Within it, no bar is shown.

    >>> with no_progress(), progress("a part") as report:
    ...     report(0.5)
    """
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)


@contextmanager
def progress_to(listener: Listener | None) -> Iterator[None]:
    """Within it, ``listener(phase, share, note)`` is called in place of bars, with shares in 0..1; None has no effect.

    >>> with progress_to(lambda phase, share, note: print(phase, share)), progress("a part") as report:
    ...     report(0.5, "half of it")
    a part 0.0
    a part 0.5
    a part 1.0
    """
    if listener is None:
        yield
        return
    token = _listener.set(listener)
    try:
        with no_progress():
            yield
    finally:
        _listener.reset(token)


def no_report(share: float, note: str = "") -> None:
    """A report function that does nothing."""


@contextmanager
def progress(label: str) -> Iterator[Report]:
    """A bar on stderr; the function that it yields takes the finished share in 0..1 and a note.

    On a terminal the bar is redrawn five times a second; otherwise a line is added every ten seconds.

    >>> with progress("searching") as report:
    ...     report(0.5, "half of it")
    """
    terminal = sys.stderr.isatty()
    listener = _listener.get() or _nobody
    listener(label, 0.0, "")
    with tqdm(
        total=1000,
        disable=_hidden.get(),
        desc=label,
        file=sys.stderr,
        bar_format=_TERMINAL if terminal else _TERMINAL + "\n",
        mininterval=0.2 if terminal else 10,
        leave=True,
    ) as bar:

        def report(share: float, note: str = "") -> None:
            listener(label, share, note)
            bar.set_postfix_str(", ".join(filter(None, (note, _left_of_all()))), refresh=False)
            bar.update(min(1000, int(share * 1000)) - bar.n)

        yield report
        bar.update(1000 - bar.n)
    listener(label, 1.0, "")


def _nobody(phase: str, share: float, note: str) -> None:
    """Listen to nothing."""


def _left_of_all() -> str:
    end = _end_of_all.get()
    return "" if end is None else f"run: {tqdm.format_interval(max(0.0, end - time.monotonic()))} left"
