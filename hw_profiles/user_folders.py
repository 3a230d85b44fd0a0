"""Where fitnas keeps what it made on this machine."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path, user_data_path


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
