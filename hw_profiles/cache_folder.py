"""Where fitnas keeps what can be made again."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """fitnas' folder among the caches of this user; the variable ``XDG_CACHE_HOME`` moves it.

    >>> cache_folder().name
    'fitnas'
    """
    return user_cache_path("fitnas", appauthor=False)
