"""SQLite files of studies: made whole, and addressed whatever their name is."""

from __future__ import annotations

import secrets
from pathlib import Path

import optuna
from sqlalchemy import URL


def sqlite_url(path: Path) -> str:
    """A file's address as a storage of Optuna, whatever is in its name.

    >>> sqlite_url(Path("50%?.db"))
    'sqlite:///50%25%3F.db'
    """
    # Optuna fills in templates: braces stand doubled.
    url = URL.create("sqlite", database=str(path)).render_as_string()
    return url.replace("{", "{{").replace("}", "}}")


def create_database(path: Path) -> None:
    """Make the file whole under another name first: a kill among its tables would leave one that nobody can open.

    Of several processes that do so at once, one makes the file and the others find it.
    """
    if path.exists():
        return
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        storage = optuna.storages.RDBStorage(sqlite_url(partial))
        storage.engine.dispose()
        _place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _place(partial: Path, path: Path) -> None:
    """Give the file its name, but never in the place of one that another process has made meanwhile."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            partial.replace(path)
