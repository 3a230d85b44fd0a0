"""What a command writes to stderr beside its result: log lines and progress bars."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any


def add_verbosity(parser: argparse.ArgumentParser, **how: Any) -> None:
    """Add ``-v`` and ``-q``, which exclude each other; ``how`` goes to both, such as ``default``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="also show log messages from third-party libraries (default: off)",
        **how,
    )
    group.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="show warnings only, no progress bars or log messages (default: off)",
        **how,
    )


def _is_not_the_error(record: logging.LogRecord) -> bool:
    """Whether a record is anything but the message with which the command then fails."""
    return not record.getMessage().startswith("the search ended: nothing fits")


@contextmanager
def light_log(*, verbose: bool = False, quiet: bool = False) -> Iterator[None]:
    """As :func:`log_on_stderr`, for commands that are over in seconds: no library is loaded for it."""
    log = logging.root if verbose else logging.getLogger("fitnas")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("nas: %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        with _no_progress() if quiet else nullcontext():
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def _no_progress() -> Iterator[None]:
    from compress.progress import no_progress

    with no_progress():
        yield


@contextmanager
def log_on_stderr(*, verbose: bool = False, quiet: bool = False) -> Iterator[None]:
    """Within it, log records appear on stderr as ``nas: message``, and warnings of libraries do not appear.

    ``quiet`` shows warnings only and no progress bar; ``verbose`` also shows what the libraries log and warn of.
    """
    import optuna

    from compress.progress import no_progress

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("nas: %(message)s"))
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    handler.addFilter(_is_not_the_error)
    level = logging.root.level
    logging.root.addHandler(handler)
    if verbose:
        logging.root.setLevel(logging.INFO)
    else:
        warnings.filterwarnings("ignore", category=UserWarning)
    optuna.logging.set_verbosity(optuna.logging.INFO if verbose else optuna.logging.ERROR)
    try:
        with no_progress() if quiet else nullcontext():
            yield
    finally:
        logging.root.removeHandler(handler)
        logging.root.setLevel(level)
