"""What runs in a process that :class:`nas.execution.child_process.ChildProcess` starts: calls one function, again and
again, and tells what came of it."""

from __future__ import annotations

import faulthandler
import importlib
import logging
import os
import pickle
import queue
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.spawn import prepare
from pathlib import Path
from typing import Any

from nas.execution.memory_limits import limit_memory
from nas.execution.pickling import Packed, pack

_REPORTS_PER_SECOND = 10
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

Filter = tuple[str, str | None, tuple[str, str], str | None, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a child process receives before calls of another function.

    ``main``: where the script that was started lies, as multiprocessing says it; ``imports``: modules to import first.
    """

    target: Path
    main: Mapping[str, str]
    imports: Sequence[str]
    argv: Sequence[str]
    path: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    threads: int | None
    memory_bytes: int | None
    filters: Sequence[Filter]
    log_levels: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the function, (arguments, keyword arguments) packed. ``feedback``: names of keyword arguments that the
    child adds: ``report`` (:data:`compress.progress.Report`) and ``show`` (a factory of these)."""

    packed: Packed
    feedback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """The function is loaded."""


@dataclass(frozen=True, slots=True)
class Unloadable:
    """The function cannot be loaded in the child."""

    text: str


@dataclass(frozen=True, slots=True)
class Returned:
    """What the function returned, packed."""

    packed: Packed


@dataclass(frozen=True, slots=True)
class Raised:
    """What the function raised; ``exception`` is its pickle, None where it has none."""

    text: str
    traceback: str
    out_of_memory: bool
    exception: bytes | None


@dataclass(frozen=True, slots=True)
class Feedback:
    """Progress: a bar opened (a label), moved (a share and a note) or closed (nothing)."""

    label: str | None = None
    share: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Logged:
    """A line for the log."""

    logger: str
    level: int
    text: str


@dataclass(slots=True)
class _State:
    importing_main: bool = False
    main_is_loaded: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


_STATE = _State()


def importing_main() -> bool:
    """Whether this is a child that loads the user's script: what the script starts then, it would start for ever."""
    return _STATE.importing_main


def main(descriptor: int, terminal: int, parent: int) -> None:
    """Serve calls from the connection ``descriptor`` until it ends; ``terminal`` is where the parent's stderr goes.

    Our own stderr is a file, so that the last words of a crash do not fill the user's terminal; what Python code
    prints there, and warnings, go to the terminal.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent ends us
    faulthandler.enable(2)
    for inherited in (descriptor, terminal):
        os.set_inheritable(inherited, False)
    sys.stderr = open(terminal, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    connection = Connection(descriptor)
    _end_with(parent)
    messages: queue.SimpleQueue[Settings | Call | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, messages), daemon=True).start()
    tell = _teller(connection)
    forward = _Forward(tell)
    logging.root.addHandler(forward)
    target: Callable[..., Any] | None = None
    settings: Settings | None = None
    while (message := messages.get()) is not None:
        if isinstance(message, Settings):
            settings, target = message, _loaded(message, tell)
        elif target is not None and settings is not None:
            tell(_outcome(target, message, settings, tell))


def _end_with(parent: int) -> None:
    """End when the parent does, even where native code never lets another thread run (Linux; see also _receive)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)


def _receive(connection: Connection, messages: queue.SimpleQueue[Settings | Call | None]) -> None:
    """Runs in a thread of its own, so that the end of the parent is seen while the function runs."""
    try:
        while True:
            messages.put(pickle.loads(connection.recv_bytes()))
    except (EOFError, OSError):
        _end_group()


def _end_group() -> None:
    """End with all processes that were started here: this one leads their group."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _teller(connection: Connection) -> Callable[[Any], None]:
    def tell(message: Any) -> None:
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        try:
            with _STATE.lock:
                connection.send_bytes(data)
        except OSError:  # nobody listens: the parent is gone, or the function closed what it did not open
            os._exit(1)

    return tell


def _loaded(settings: Settings, tell: Callable[[Any], None]) -> Callable[..., Any] | None:
    _adapt(settings)
    warnings.filters[:] = _filters(settings.filters)  # type: ignore[index]
    try:
        _load_main(settings, needed="__main__" in settings.imports)
        for name in settings.imports:
            importlib.import_module(name)
        target: Callable[..., Any] = _load(pickle.loads(settings.target.read_bytes()), settings)
    except BaseException as error:  # whatever ends the loading would end it the next time too
        tell(Unloadable(f"{type(error).__name__}: {error}"))
        return None
    warnings.filters[:] = _filters(settings.filters)  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]
    tell(Ready())
    return target


def _adapt(settings: Settings) -> None:
    """Become like the process that asks: its folder, its environment, where it imports from, its limits."""
    sys.argv[:] = settings.argv
    sys.path[:] = settings.path
    with suppress(OSError):
        os.chdir(settings.folder)
    os.environ.clear()
    os.environ.update(settings.environment)
    limit_memory(settings.memory_bytes)
    torch = sys.modules.get("torch")
    if torch is not None and settings.threads is not None:  # it does not look at the environment again
        torch.set_num_threads(settings.threads)
    for name, level in settings.log_levels.items():
        logging.getLogger(name).setLevel(level)


def _load(packed: Packed, settings: Settings) -> Any:
    _load_main(settings, needed=packed.refers_to_main)
    return packed.load()


def _load_main(settings: Settings, *, needed: bool) -> None:
    if not needed or _STATE.main_is_loaded:
        return
    _STATE.importing_main = True
    try:
        prepare(dict(settings.main))
    finally:
        _STATE.importing_main = False
    _STATE.main_is_loaded = True


def _outcome(
    target: Callable[..., Any], call: Call, settings: Settings, tell: Callable[[Any], None]
) -> Returned | Raised:
    try:
        arguments, keywords = _load(call.packed, settings)
        return Returned(pack(target(*arguments, **keywords, **_feedback(call.feedback, tell))))
    except BaseException as error:
        return _raised(error)


def _raised(error: BaseException) -> Raised:
    text = str(error)
    in_full = "".join(traceback.format_exception(error))
    out_of_memory = isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)
    error.__traceback__ = None  # its frames hold what the function had allocated
    data: bytes | None
    try:
        data = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
        pickle.loads(data)  # exceptions with arguments of their own are often pickled but not loaded
    except Exception:
        data = None
    return Raised(f"{type(error).__name__}: {text}".rstrip(": "), in_full, out_of_memory, data)


_OUT_OF_MEMORY = ("can't allocate memory", "Cannot allocate memory", "std::bad_alloc")  # of torch


def _feedback(names: Sequence[str], tell: Callable[[Any], None]) -> dict[str, Any]:
    reported = -1.0

    def report(share: float, note: str = "") -> None:
        nonlocal reported
        now = time.monotonic()
        if share >= 1 or now - reported > 1 / _REPORTS_PER_SECOND:
            reported = now
            tell(Feedback(share=share, note=note))

    @contextmanager
    def show(label: str) -> Iterator[Callable[..., None]]:
        tell(Feedback(label=label))
        yield report
        tell(Feedback())

    return {name: {"report": report, "show": show}[name] for name in names}


class _Forward(logging.Handler):
    def __init__(self, tell: Callable[[Any], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(Logged(record.name, record.levelno, self.format(record)))


def filters_of_this_process() -> list[Filter]:
    """The filters of warnings, in plain types: to load their categories is to import modules."""
    return [
        (action, _pattern(message), (category.__module__, category.__qualname__), _pattern(module), line)
        for action, message, category, module, line in warnings.filters
        if isinstance(category, type)
    ]


def _pattern(expression: Any) -> str | None:
    return expression if expression is None or isinstance(expression, str) else expression.pattern


def _filters(given: Sequence[Filter]) -> list[Any]:
    """Those whose category is known here; what no module here defines is not warned of either."""
    found = []
    for action, message, (module_name, name), module, line in given:
        category = getattr(sys.modules.get(module_name), name, None)
        if category is not None:
            found.append((action, _compiled(message, re.IGNORECASE), category, _compiled(module), line))
    return found


def _compiled(pattern: str | None, flags: int = 0) -> re.Pattern[str] | None:
    return None if pattern is None else re.compile(pattern, flags)
