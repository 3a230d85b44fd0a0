"""Reads the files of a finished run that a report needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy.exc import SQLAlchemyError

from hw_profiles.errors import InputError
from nas.results.collect import METRICS_SCHEMA
from nas.results.metrics_file import read_metrics
from nas.storages.sqlite_file import sqlite_url


@dataclass(frozen=True, slots=True, eq=False)
class FinishedRun:
    """The metrics.json and the study of a finished run."""

    folder: Path
    metrics: Mapping[str, Any]
    study: optuna.Study


def read_run(folder: Path) -> FinishedRun:
    """Read both files.

    Raises:
        InputError: the folder holds no finished run of this version.
    """
    for name in ("metrics.json", "study.db"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is not a finished run: {name} is missing")
    return FinishedRun(folder, _read_metrics(folder / "metrics.json"), _read_study(folder / "study.db"))


@contextmanager
def belongs_to_a_run(folder: Path) -> Iterator[None]:
    """Within it, an error that files of another content cause is an InputError."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{folder}: not a finished run (invalid metrics.json or study.db: {error!r})") from None


def _read_metrics(path: Path) -> Mapping[str, Any]:
    metrics = read_metrics(path)
    schema = metrics.get("schema")
    if schema != METRICS_SCHEMA:
        raise InputError(
            f"{path} was written by a different fitnas version (schema {schema!r}, expected {METRICS_SCHEMA})"
        )
    return metrics


def _read_study(path: Path) -> optuna.Study:
    try:
        return optuna.load_study(study_name="search", storage=sqlite_url(path))
    except (KeyError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise InputError(f"{path}: not the study of a run ({type(error).__name__})") from None
