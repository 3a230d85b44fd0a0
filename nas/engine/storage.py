"""The storage of a study: SQLite files, made whole and addressed whatever their name is."""

from __future__ import annotations

from pathlib import Path

import optuna
from sqlalchemy import URL


def sqlite_url(path: Path) -> str:
    """A file's address as a storage of Optuna, whatever is in its name.

    >>> sqlite_url(Path("50%?.db"))
    'sqlite:///50%25%3F.db'
    """
    return URL.create("sqlite", database=str(path)).render_as_string()


def create_database(path: Path) -> None:
    """Make the file whole under another name first: a kill among its tables would leave one that nobody can open."""
    if path.exists():
        return
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    storage = optuna.storages.RDBStorage(sqlite_url(partial))
    storage.engine.dispose()
    partial.replace(path)
