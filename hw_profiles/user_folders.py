"""Where fitnas keeps what it made on this machine."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from hw_profiles.errors import InputError

CACHE_VARIABLE, DATA_VARIABLE = "XDG_CACHE_HOME", "XDG_DATA_HOME"
"""The variables of the environment that move the folders."""
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def cache_folder() -> Path:
    """fitnas' folder among the caches of this user; the variable ``XDG_CACHE_HOME`` moves it.

    >>> cache_folder().name
    'fitnas'
    """
    return user_cache_path("fitnas", appauthor=False)


def calibrated_devices_folder() -> Path:
    """The folder of devices that were calibrated to this machine; the variable ``XDG_DATA_HOME`` moves it.

    >>> calibrated_devices_folder().parts[-2:]
    ('fitnas', 'devices')
    """
    return user_data_path("fitnas", appauthor=False) / "devices"


@contextmanager
def kept_in(folder: Path, variable: str) -> Iterator[None]:
    """Make a folder of this user, and let files be kept there.

    Raises:
        InputError: it cannot be written to, with the ``variable`` that moves it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in _FULL_DISK:
            raise
        raise InputError(
            f"folder {folder} must be writable ({error.strerror or error}): set {variable} to one that is"
        ) from None
