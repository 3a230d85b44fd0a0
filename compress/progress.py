"""Progress bars with an estimate of the time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Report = Callable[[float, str], None]
_TERMINAL = "{desc:<22} {percentage:3.0f}%|{bar:24}| {elapsed}, {remaining} left {postfix}"


def no_report(share: float, note: str = "") -> None:
    """Ignores what it is told."""


@contextmanager
def progress(label: str) -> Iterator[Report]:
    """A bar on stderr; the function it gives takes the share that is done, 0..1, and a note.

    On a terminal the bar is redrawn five times a second, in a log a line is added every ten seconds.

    >>> with progress("searching") as report:
    ...     report(0.5, "half of it")
    """
    terminal = sys.stderr.isatty()
    with tqdm(
        total=1000,
        desc=label,
        file=sys.stderr,
        bar_format=_TERMINAL if terminal else _TERMINAL + "\n",
        mininterval=0.2 if terminal else 10,
        leave=True,
    ) as bar:

        def report(share: float, note: str = "") -> None:
            bar.set_postfix_str(note, refresh=False)
            bar.update(min(1000, int(share * 1000)) - bar.n)

        yield report
        bar.update(1000 - bar.n)
