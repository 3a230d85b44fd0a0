"""InputError: wrong input, as opposed to a bug."""

from __future__ import annotations


class InputError(ValueError):
    """Input that a user can correct: the message states on one line what must hold, what came and what is valid.

    Public functions check their arguments and files and raise it; the command line prints it and ends with exit code 2.
    Any other ValueError is a bug.
    """


_LONGEST_REASON = 200


def short_reason(error: BaseException) -> str:
    """The message of an error on one line, at most 200 characters of it.

    >>> short_reason(OSError("no   route")), short_reason(KeyError())
    ('no route', 'KeyError')
    """
    return " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of the message of an error, at most 200 characters of it: what follows explains it.

    >>> first_line(OSError("no route")), first_line(KeyError())
    ('no route', 'KeyError')
    """
    return (str(error).splitlines() or [type(error).__name__])[0][:_LONGEST_REASON]
