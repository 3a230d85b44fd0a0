"""Errors that end a command with one line: wrong input, nothing fits, a full disk, a crash of native code."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hw_profiles.errors import InputError

if TYPE_CHECKING:
    import optuna

__all__ = ["CrashError", "InputError", "NothingFitsError", "UserFunctionError", "disk_is_full", "user_input"]


class NothingFitsError(Exception):
    """Raised when no network meets the budget; the message explains why (exit code 3)."""


class CrashError(Exception):
    """A process that did a part of the work was ended by a signal, or ended itself: one line, exit code 1.

    It is neither wrong input nor a bug that a traceback would show. Finished work remains usable.
    """


class UserFunctionError(ValueError):
    """A function that was given to a search failed. The exception that it raised is in the text and is the cause.

    ``study`` is the study as it was left, where the search came to its end.
    """

    def __init__(self, text: str, study: optuna.Study | None = None) -> None:
        super().__init__(text)
        self.study = study


_UNUSABLE_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS)


@contextmanager
def user_input() -> Iterator[None]:
    """Within it, a file that is missing, or that may not be read or written, is an InputError, and every InputError is
    one line.
    """
    try:
        yield
    except (InputError, OSError) as error:
        if isinstance(error, OSError) and not _is_of_a_path(error):
            raise
        raise InputError(" ".join(str(error).split())) from error


def _is_of_a_path(error: OSError) -> bool:
    known = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
    return isinstance(error, known) or error.errno in _UNUSABLE_PATH


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a full disk.

    >>> disk_is_full(OSError(errno.ENOSPC, "no space"))
    True
    """
    seen: BaseException | None = error
    while seen is not None:
        if (isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT)) or (
            "database or disk is full" in str(seen)
        ):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
