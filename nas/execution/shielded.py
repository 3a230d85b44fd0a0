"""One long call in a separate process: a crash of native code becomes an exception."""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Any

from compress.atomic_files import write_json
from hw_profiles.errors import InputError
from nas.errors import CrashError
from nas.execution.child_main import Call, Feedback, Logged, Raised, Ready, Returned, Unloadable
from nas.execution.child_process import (
    ChildDiedError,
    ChildProcess,
    InTheChildError,
    Target,
    packed_for_child,
    prepared,
)
from nas.execution.feedback import ProgressHere, log_again
from nas.execution.kept_processes import end_child, started_child
from nas.execution.temporary_folder import TemporaryFolder

if TYPE_CHECKING:
    from compress.progress import Report

log = logging.getLogger("fitnas")


def run_shielded(
    function: Callable[..., Any],
    *args: Any,
    keywords: Mapping[str, Any] | None = None,
    what: str,
    report: Report | None = None,
    show: Callable[[str], AbstractContextManager[Report]] | None = None,
    after_crash: Sequence[Any] | None = None,
    note: Path | None = None,
) -> Any:
    """``function(*args, **keywords)``, called in a process of its own that runs with as many threads as this one.

    What it returns and what it raises come back; its lines of the log are added to the log here. With ``report`` or
    ``show`` (such as :func:`compress.progress.progress`) it is given a keyword argument of that name, which does here
    what it is told there. Function, arguments and result must be ones that can be pickled.

    ``after_crash`` are other arguments for a second try after a crash, such as another memory format. With ``note``,
    a file, a crash is noted there, and the next call with that file begins with ``after_crash`` at once.

    Raises:
        CrashError: a signal, or the function itself, ended the process; ``what`` names it in the text.
        InputError: something cannot be pickled, or the function cannot be loaded in another process.

    >>> run_shielded(divmod, 7, 2, what="the division")
    (3, 1)
    """
    tries = [args] if after_crash is None else [args, tuple(after_crash)]
    if note is not None and note.is_file():
        tries = tries[-1:]
    given = {"report": report, "show": show}
    feedback = tuple(name for name, value in given.items() if value is not None)
    with TemporaryFolder() as folder:
        target = prepared(function, what, folder, threads=_threads(), memory_bytes=None)
        for number, arguments in enumerate(tries, 1):
            packed = packed_for_child((arguments, dict(keywords or {})), what, folder)
            try:
                with ProgressHere(report, show) as bars:
                    return _called(target, Call(packed, feedback), what, bars)
            except ChildDiedError as error:
                # What the kernel ended for its memory would need no less of it in another way.
                again = number < len(tries) and error.returncode != -SIGKILL
                _tell(error, what, note, again=again)
                if not again:
                    raise CrashError(f"{what} {error}") from InTheChildError(error.last_words)
    raise AssertionError("a try returns or raises")


def _threads() -> int | None:
    """Sums in another number of threads come out in another way."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def _tell(error: ChildDiedError, what: str, note: Path | None, *, again: bool) -> None:
    log.warning("%s %s%s", what, error, "; retrying once with different kernels" if again else "")
    if error.last_words:
        log.info("%s", error.last_words)
    if note is not None and error.returncode != -SIGKILL:  # a lack of memory may be over the next time
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, {"crash": str(error)})


def _called(target: Target, call: Call, what: str, bars: ProgressHere) -> Any:
    child = started_child(target)
    try:
        child.call(call)
        message = _answer(child, bars)
        if isinstance(message, Ready):
            message = _answer(child, bars)
        if isinstance(message, Unloadable):
            raise InputError(f"{what} cannot be loaded in a process of its own ({message.text})")
    finally:
        end_child(child)
    if isinstance(message, Raised):
        raise _exception(message) from InTheChildError(message.traceback)
    assert isinstance(message, Returned)
    return message.packed.load()


def _answer(child: ChildProcess, bars: ProgressHere) -> Any:
    while True:
        message = child.receive()
        if isinstance(message, Logged):
            log_again(message)
        elif isinstance(message, Feedback):
            bars.follow(message)
        else:
            return message


def _exception(message: Raised) -> BaseException:
    if message.exception is not None:
        exception: BaseException = pickle.loads(message.exception)
        return exception
    return RuntimeError(message.text)
