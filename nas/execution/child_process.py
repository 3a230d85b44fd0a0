"""A separate process that calls one function, so that a crash does not affect the caller."""

from __future__ import annotations

import fcntl
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from typing import Any

from blocks.custom import CUSTOM_BLOCKS, REGISTERED_BY
from hw_profiles.errors import InputError
from nas.execution.child_main import (
    Call,
    Raised,
    Ready,
    Returned,
    Settings,
    Unloadable,
    filters_of_this_process,
    importing_main,
)
from nas.execution.pickling import Packed, pack

_LOOK_SECONDS = 0.5  # between two looks whether a child is alive whose connection another process still holds
_EXIT_SECONDS = 5.0  # from the end of a connection to that of its process
_LAST_WORDS = 4000
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class InTheChildError(Exception):
    """Where in a child an error came from, a traceback or what it wrote when it crashed: the ``__cause__`` of the error
    that is raised here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class ChildDiedError(Exception):
    """The child ended in the middle of a call; its text is how, such as "was killed by signal 6 (aborted)".

    ``returncode`` is as :mod:`subprocess` says it, ``last_words`` is the end of what was written to its stderr.
    """

    def __init__(self, returncode: int, last_words: str = "") -> None:
        super().__init__(ending(returncode))
        self.returncode = returncode
        self.last_words = last_words


def ending(returncode: int) -> str:
    """How a process ended.

    >>> ending(-11), ending(3)
    ('was killed by signal 11 (segmentation fault)', 'exited with code 3')
    """
    if returncode >= 0:
        return f"exited with code {returncode}"
    number = -returncode
    name = "probably out of memory" if number == signal.SIGKILL else (signal.strsignal(number) or "unknown").lower()
    return f"was killed by signal {number} ({name})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A function, packed in a file of ``folder``, and how a child that calls it is limited."""

    folder: Path
    packed: Packed
    threads: int | None
    memory_bytes: int | None

    @property
    def path(self) -> Path:
        """The file with the packed function."""
        return self.folder / "function.pickle"


def prepared(
    function: Callable[..., Any], name: str, folder: Path, *, threads: int | None, memory_bytes: int | None
) -> Target:
    """What is needed to start children that call ``function``.

    Raises:
        InputError: it cannot be pickled.
    """
    if importing_main():
        raise RuntimeError(
            "the script starts processes while it is loaded in one of them: "
            'put what it does under `if __name__ == "__main__":`'
        )
    target = Target(
        folder=folder,
        packed=packed_for_child(function, name, folder),
        threads=threads,
        memory_bytes=memory_bytes,
    )
    target.path.write_bytes(pickle.dumps(target.packed))
    return target


def packed_for_child(value: Any, name: str, folder: Path | None = None) -> Packed:
    """``value`` packed, or an InputError that says what to do about it."""
    try:
        packed = pack(value, folder)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"{name} cannot be sent to another process ({error}): "
            "define its functions and classes at the top level of a module, and keep no open files or locks in it"
        ) from None
    if packed.refers_to_main and not _main():
        raise InputError(
            f"{name} is defined in an interactive session, which other processes cannot read: "
            "define it in a file and import it"
        )
    return packed


def _main() -> dict[str, str]:
    return {key: value for key, value in get_preparation_data("child").items() if key.startswith("init_main")}


class ChildProcess:
    """A started process; it loads the function of a target, says so (``Ready``), and then takes calls.

    ``busy``: whether it loads or calls a function. ``spent``: whether it is to be replaced, which its user notes.
    """

    def __init__(self) -> None:
        self.busy = self.spent = False
        self._stderr = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, fcntl.fcntl(self._stderr, fcntl.F_GETFL) | os.O_APPEND)
        self._connection, theirs = Pipe()
        terminal = _terminal()
        path = [entry or str(Path.cwd()) for entry in sys.path]
        code = (
            f"import sys; sys.path[:] = {path!r}; from nas.execution.child_main import main; "
            f"main({theirs.fileno()}, {terminal}, {os.getpid()})"
        )
        try:
            self._process = subprocess.Popen(
                [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined]
                stdin=subprocess.DEVNULL,
                stdout=terminal,  # our stdout is for data
                stderr=self._stderr,
                start_new_session=True,  # so that what it starts can be ended with it
                pass_fds=(theirs.fileno(), terminal),
            )
        finally:
            theirs.close()
            os.close(terminal)

    def load(self, target: Target) -> None:
        """Have it load a function, in place of the one before; its answer is ``Ready`` or ``Unloadable``."""
        self.busy = True
        self._stderr.truncate(0)
        threads = {} if target.threads is None else dict.fromkeys(_THREADS, str(target.threads))
        settings = Settings(
            target=target.path,
            main=_main(),
            imports=sorted({REGISTERED_BY[kind] for kind in CUSTOM_BLOCKS.keys() & REGISTERED_BY}),
            argv=list(sys.argv),
            path=[entry or str(Path.cwd()) for entry in sys.path],
            folder=str(Path.cwd()),
            environment={**os.environ, **threads},
            threads=target.threads,
            # What is mapped to be written to counts as memory from the start.
            memory_bytes=None if target.memory_bytes is None else target.memory_bytes + target.packed.mapped_bytes,
            filters=filters_of_this_process(),
            log_levels=_log_levels(),
        )
        self._send(settings)

    @property
    def is_reusable(self) -> bool:
        """Whether it is alive and has nothing to do."""
        return not self.busy and not self.spent and self._process.poll() is None

    def call(self, call: Call) -> None:
        """Begin a call; its outcome is the last message of it."""
        self.busy = True
        self._send(call)

    def _send(self, message: Any) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it is dead, which receive() tells
            self._connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def receive(self, deadline: float | None = None) -> Any:
        """The next message.

        Raises:
            ChildDiedError: there is none any more.
            TimeoutError: none came until ``deadline`` (of ``time.monotonic``).
        """
        while True:
            left = _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, deadline - time.monotonic())
            dead = self._process.poll() is not None
            try:
                if self._connection.poll(0 if dead else max(0.0, left)):
                    message = pickle.loads(self._connection.recv_bytes())
                    self.busy &= not isinstance(message, Ready | Unloadable | Returned | Raised)
                    return message
            except (EOFError, OSError):
                dead = True
            if dead:
                raise ChildDiedError(self._ended(), self._last_words())
            if left <= 0:
                raise TimeoutError

    def _ended(self) -> int:
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_EXIT_SECONDS)
        self.kill()  # it cannot answer any more
        return self._process.wait()

    def _last_words(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()[-_LAST_WORDS:].decode(errors="replace")

    def kill(self) -> None:
        """End it at once, and the processes that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill it, wait for its end, and free everything."""
        self.kill()
        self._process.wait()
        self._connection.close()
        self._stderr.close()


def _terminal() -> int:
    try:
        return os.dup(2)
    except OSError:  # a daemon has closed it
        return os.open(os.devnull, os.O_WRONLY)


def _log_levels() -> dict[str, int]:
    loggers = [logging.root, *(each for each in logging.root.manager.loggerDict.values())]
    return {each.name: each.level for each in loggers if isinstance(each, logging.Logger) and each.level}
