"""Opens a storage by its address: a file, a database server, a journal, or a gRPC proxy."""

from __future__ import annotations

import logging
import random
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError, SQLAlchemyError

from hw_profiles.errors import InputError
from nas.storages.patient_storage import PatientStorage, innermost
from nas.storages.salvage import damaged_file_error
from nas.storages.sqlite_file import create_database, sqlite_url

_VALID = (
    "FILE.db, sqlite:///FILE, postgresql://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE, journal:FILE or "
    "grpc://HOST:PORT"
)
# The driver of each kind of server, and what installs it. Each is named in the address, for what SQLAlchemy takes
# where none is named differs between its versions.
_DRIVERS = {
    "postgresql": ("psycopg2", "pip install 'fitnas[postgres]'"),
    "mysql": ("pymysql", "pip install 'fitnas[mysql]'"),
}
_CONNECT_SECONDS = 10
# A machine whose cable is pulled says nothing: without these a call would wait for an answer for many minutes.
_CONNECTION: dict[str, dict[str, Any]] = {
    "psycopg2": {
        "connect_timeout": _CONNECT_SECONDS, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    },
    "pymysql": {"connect_timeout": _CONNECT_SECONDS, "read_timeout": 60, "write_timeout": 60},
}  # fmt: skip
_SQLITE_LOCK_SECONDS = 30
_ATTEMPTS_AT_TABLES = 5
# A worker that is killed while it holds the journal's lock keeps the others waiting for so long.
_JOURNAL_LOCK_SECONDS = 10
_JOURNAL_SUFFIXES = (".journal", ".log")
_DATABASE_SUFFIXES = (".db", ".sqlite", ".sqlite3")


def open_storage(address: str | Path | BaseStorage | None, *, patience: float = 120.0) -> BaseStorage | None:
    """The storage at an address, made where there is none yet; a storage and None are given back as they are.

    A path is an SQLite file, or with the suffix .journal or .log a journal; so is a text without ``://``. A server is
    named as ``postgresql://user@host/database`` or ``mysql://…``, a journal also as ``journal:FILE``, a proxy
    (``optuna.storages.run_grpc_proxy_server``) as ``grpc://host:port``. A storage that does not answer later on is
    waited for ``patience`` seconds.

    Raises:
        InputError: an address of no such kind, a driver that is missing, a server that does not answer, a file that is
            damaged. No message holds a password.

    >>> open_storage("mongodb://host")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    hw_profiles.errors.InputError: storage must be FILE.db, sqlite:///FILE, ..., got 'mongodb://host'
    """
    if address is None or isinstance(address, BaseStorage):
        return address
    if isinstance(address, Path):
        return _open_file(address, patience)
    if not isinstance(address, str):
        raise InputError(f"storage must be {_VALID}, got {address!r}")
    scheme, separator, rest = address.partition("://")
    if address.startswith("journal:"):
        return _open_journal(Path(address.removeprefix("journal:").removeprefix("//")))
    if not separator:
        return _open_file(Path(address), patience, named=address)
    if scheme == "grpc":
        return _open_proxy(rest, patience)
    return _open_server(address, patience)


def storage_label(address: str | Path) -> str:
    """An address without its password, for messages and logs.

    >>> storage_label("postgresql://anna:secret@host/studies")
    'postgresql://anna:***@host/studies'
    """
    try:
        return make_url(str(address)).render_as_string(hide_password=True)
    except ArgumentError:
        return str(address)


def _open_file(path: Path, patience: float, named: str | None = None) -> BaseStorage:
    if path.suffix in _JOURNAL_SUFFIXES:
        return _open_journal(path)
    if named is not None and path.suffix not in _DATABASE_SUFFIXES and not path.is_file():
        raise InputError(f"storage must be {_VALID}, got {named!r}")
    return _open_sqlite(path, patience)


def _open_sqlite(path: Path, patience: float) -> BaseStorage:
    if not path.absolute().parent.is_dir():
        raise InputError(f"storage {path}: there is no folder {path.parent}")

    explain = partial(damaged_file_error, path)
    try:
        create_database(path)
        backend = RDBStorage(
            sqlite_url(path), {"connect_args": {"timeout": _SQLITE_LOCK_SECONDS}}, skip_table_creation=True
        )
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise explain(error) or _not_opened(str(path), error) from error
    return _patient(backend, str(path), patience, explain)


def _open_server(address: str, patience: float) -> BaseStorage:
    try:
        url = make_url(
            address.replace("postgres://", "postgresql://", 1) if address.startswith("postgres:") else address
        )
        kind = url.get_backend_name()
    except (ArgumentError, ValueError):
        raise InputError(f"storage must be {_VALID}, got {_without_password(address)!r}") from None
    if kind == "sqlite":
        if url.database in (None, "", ":memory:"):
            return optuna.storages.InMemoryStorage()
        return _open_sqlite(Path(str(url.database)), patience)
    if kind not in _DRIVERS:
        raise InputError(f"storage must be {_VALID}, got {_without_password(address)!r}")
    driver, install = _DRIVERS[kind]
    if url.drivername == kind:
        url = url.set(drivername=f"{kind}+{driver}")
    options = {key: value for key, value in _CONNECTION.get(url.get_driver_name(), {}).items() if key not in url.query}
    label = url.set(drivername=kind).render_as_string(hide_password=True)
    try:
        backend = _connected(url, {"pool_pre_ping": True, "connect_args": options})
    except ImportError:
        raise InputError(f"storage {label}: its driver is missing: {install}") from None
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise _not_opened(label, error, url.password) from None
    return _patient(backend, label, patience, None)


def _connected(url: URL, engine_options: dict[str, Any]) -> RDBStorage:
    """The storage, its tables made: of several workers that begin on an empty database, all but one find tables that
    come into being while they look, and look once more."""
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    for _ in range(_ATTEMPTS_AT_TABLES - 1):
        try:
            return RDBStorage(text, engine_options)
        except (IntegrityError, ProgrammingError):
            time.sleep(random.uniform(0.1, 0.5))
        except StorageInternalError as error:
            if not isinstance(error.__cause__, IntegrityError | ProgrammingError):
                raise
            time.sleep(random.uniform(0.1, 0.5))
    return RDBStorage(text, engine_options)


def _open_journal(path: Path) -> BaseStorage:
    path = path.absolute()  # the lock file is next to the file, wherever the process goes
    if not path.parent.is_dir():
        raise InputError(f"storage {path}: there is no folder {path.parent}")
    try:
        lock = JournalFileOpenLock(str(path), grace_period=_JOURNAL_LOCK_SECONDS)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError) as error:  # lines that are no JSON, or not those of a journal
        raise InputError(f"storage {path}: not a journal of Optuna, or a damaged one ({error})") from None


def _open_proxy(place: str, patience: float) -> BaseStorage:
    host, _, port = place.rstrip("/").rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"storage must be {_VALID}, got 'grpc://{place}'")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            proxy = optuna.storages.GrpcStorageProxy(host=host, port=int(port))
    except ImportError:
        raise InputError(f"storage grpc://{place}: its client is missing: pip install 'fitnas[grpc]'") from None
    try:
        proxy.wait_server_ready(timeout=_CONNECT_SECONDS)
    except ConnectionError:
        raise InputError(f"storage grpc://{place}: it does not answer") from None
    return PatientStorage(proxy, f"grpc://{place}", patience=patience)


def _patient(
    backend: RDBStorage, label: str, patience: float, explain: Callable[[BaseException], InputError | None] | None
) -> PatientStorage:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return PatientStorage(optuna.storages.get_storage(backend), label, patience=patience, explain=explain)


def _not_opened(label: str, error: BaseException, password: str | None = None) -> InputError:
    reason = innermost(error)
    if password:
        reason = reason.replace(str(password), "***")
    return InputError(f"cannot open storage {label}: {reason}")


def _without_password(address: str) -> str:
    """An address that cannot be read as one, without what may be a password: what stands before its last @."""
    scheme, separator, rest = address.partition("://")
    return f"{scheme}{separator}***@{rest.rpartition('@')[2]}" if "@" in rest else address
