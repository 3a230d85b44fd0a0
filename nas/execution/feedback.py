"""Progress and log messages of a child process, shown by this process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nas.execution.child_main import Feedback, Logged

if TYPE_CHECKING:
    from compress.progress import Report


def log_again(message: Logged) -> None:
    """Add a line of a child to this process's log."""
    logger = logging.getLogger(message.logger)
    if logger.isEnabledFor(message.level):
        logger.handle(logger.makeRecord(message.logger, message.level, "", 0, message.text, (), None))


@dataclass(slots=True)
class ProgressHere:
    """Moves the bars of this process as a child says; bars that it left open are closed at the end."""

    report: Report | None
    show: Callable[[str], AbstractContextManager[Report]] | None
    _open: ExitStack = field(default_factory=ExitStack)
    _reports: list[Report] = field(default_factory=list)

    def __enter__(self) -> ProgressHere:
        if self.report is not None:
            self._reports.append(self.report)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def follow(self, message: Feedback) -> None:
        """Open, move or close a bar."""
        if message.label is not None:
            assert self.show is not None
            self._reports.append(self._open.enter_context(self.show(message.label)))
        elif message.share is not None:
            self._reports[-1](message.share, message.note)
        else:
            self._reports.pop()
            self._open.close()
