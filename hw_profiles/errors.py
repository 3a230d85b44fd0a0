"""InputError: wrong input, as opposed to a bug."""

from __future__ import annotations


class InputError(ValueError):
    """Input that a user can correct: the message states on one line what must hold, what came and what is valid.

    Public functions check their arguments and files and raise it; the command line prints it and ends with exit code 2.
    Any other ValueError is a bug.
    """
