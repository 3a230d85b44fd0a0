"""Recovers from a damaged SQLite file every trial that can still be read completely, into a new file."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sqlite3
import struct
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from hw_profiles.errors import InputError
from nas.storages.sqlite_file import create_database, sqlite_url

_DAMAGED = ("is not a database", "malformed")
_PAGE_SIZE = 4096  # SQLite's own, which Optuna leaves
_SMALLEST_ROW = 16  # bytes: no more rows than this allows can be in a file
_NUMBERS = {"FINITE": None, "INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}

Row = dict[str, Any]


def damaged_file_error(path: Path, error: BaseException) -> InputError | None:
    """The error to raise where ``error`` says that the file is damaged: its name and what was saved; else None."""
    if not _says_damaged(error):
        return None
    try:
        saved = salvage(path)
    except (OSError, sqlite3.Error, optuna.exceptions.StorageInternalError):
        saved = None
    if saved is None:
        return InputError(f"{path}: not the database of a study, or damaged beyond repair; move it away to start over")
    new, trials = saved
    counted = "1 trial" if trials == 1 else f"{trials} trials"
    return InputError(f"{path} is damaged. Recovered {counted} to {new}; to continue, replace {path} with {new}")


def salvage(path: Path) -> tuple[Path, int] | None:
    """Copy each trial that can be read whole into ``NAME.recovered.db`` beside the file: that path and their number.

    The file itself is only read. None where there is no trial to save. Trials are numbered anew, without the gaps of
    those that are lost.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "study.db"
        shutil.copyfile(path, copy)
        journal = path.with_name(f"{path.name}-journal")
        if journal.is_file():  # a transaction that was under way is rolled back
            shutil.copyfile(journal, copy.with_name(f"{copy.name}-journal"))
        if not _has_readable_schema(copy):
            _put_schema(copy)
        if not _has_readable_schema(copy):
            return None
        with closing(_connect(copy)) as connection:
            studies = _read_studies(connection, most=copy.stat().st_size // _SMALLEST_ROW)
        count = sum(len(study.trials) for study in studies)
        if not count:
            return None
        new = Path(folder) / "recovered.db"
        _write(new, studies)
        target = path.with_name(f"{path.stem}.recovered.db")
        arriving = target.with_name(f"{target.name}.partial")
        shutil.copyfile(new, arriving)
        arriving.replace(target)
    return target, count


@dataclass(slots=True)
class _Study:
    name: str
    directions: list[StudyDirection]
    user_attrs: Row
    system_attrs: Row
    trials: list[FrozenTrial] = field(default_factory=list)


@dataclass(slots=True)
class _Table:
    """The rows of a table that can be read, and the ids of those that cannot; the last of these may be none."""

    rows: dict[int, Row]
    lost: list[int]

    def grouped(self, column: str) -> dict[int, list[Row]]:
        groups: dict[int, list[Row]] = defaultdict(list)
        for number in sorted(self.rows):
            groups[self.rows[number][column]].append(self.rows[number])
        return groups

    def beside_lost(self, column: str) -> set[int]:
        """The groups that may lack rows: those with rows just before and after what is lost, and all between.

        Ids count up without gaps, so an id that is missing was lost as well.
        """
        ids = sorted(self.rows)
        gaps = {(a, b) for a, b in itertools.pairwise([0, *ids]) if b > a + 1}
        if ids and any(number > ids[-1] for number in self.lost):
            gaps.add((ids[-1], max(self.lost) + 1))
        groups: dict[int, list[int]] = defaultdict(list)
        for number in ids:
            groups[self.rows[number][column]].append(number)
        beside = {self.rows[i][column] for gap in gaps for i in gap if i in self.rows}
        return beside | {name for name, own in groups.items() if any(own[0] <= a and b <= own[-1] for a, b in gaps)}


def _says_damaged(error: BaseException) -> bool:
    link: BaseException | None = error
    while link is not None:
        if any(words in str(link) for words in _DAMAGED) or isinstance(link, json.JSONDecodeError):
            return True
        link = link.__cause__
    return False


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
    connection.row_factory = sqlite3.Row
    return connection


def _has_readable_schema(path: Path) -> bool:
    with closing(_connect(path)) as connection:
        try:
            names = {row["name"] for row in connection.execute("SELECT name FROM sqlite_master")}
        except sqlite3.DatabaseError:
            return False
    return {"studies", "study_directions", "trials", "trial_params", "trial_values"} <= names


def _put_schema(path: Path) -> None:
    """Replace the pages that say which tables there are by those of a new file, whose tables begin at the same pages:
    with the first page gone, nothing else could be found."""
    with tempfile.TemporaryDirectory() as folder:
        create_database(Path(folder) / "new.db")
        fresh = (Path(folder) / "new.db").read_bytes()
    content = bytearray(path.read_bytes())
    if len(content) < _PAGE_SIZE:
        return
    for number in _schema_pages(fresh):
        at = (number - 1) * _PAGE_SIZE
        content[at : at + _PAGE_SIZE] = fresh[at : at + _PAGE_SIZE]
    content[28:40] = struct.pack(">III", len(content) // _PAGE_SIZE, 0, 0)  # pages in the file; none of them free
    path.write_bytes(content)


def _schema_pages(content: bytes) -> list[int]:
    """The first page and those below it in its tree, by SQLite's file format (sqlite.org/fileformat2.html)."""
    interior = content[100] == 5
    if not interior:
        return [1]
    (cells,) = struct.unpack_from(">H", content, 103)
    offsets = struct.unpack_from(f">{cells}H", content, 112)
    children = [struct.unpack_from(">I", content, offset)[0] for offset in offsets]
    return [1, *children, struct.unpack_from(">I", content, 108)[0]]


def _read(connection: sqlite3.Connection, table: str, most: int) -> _Table:
    """Every row that can be read: a range of ids with damage in it is halved until it is a single row."""
    found = _Table({}, [])
    try:
        last = connection.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0] or 0
    except sqlite3.DatabaseError:
        last = most
    pending = [(1, last)]
    while pending:
        first, last = pending.pop()
        query = f"SELECT rowid AS row, * FROM {table} NOT INDEXED WHERE rowid BETWEEN ? AND ?"
        try:
            found.rows |= {row["row"]: dict(row) for row in connection.execute(query, (first, last)).fetchall()}
        except sqlite3.DatabaseError:
            if first == last:
                found.lost.append(first)
            else:
                middle = (first + last) // 2
                pending += [(first, middle), (middle + 1, last)]
    return found


def _read_studies(connection: sqlite3.Connection, most: int) -> list[_Study]:
    def read(table: str) -> _Table:
        return _read(connection, table, most)

    directions = read("study_directions").grouped("study_id")
    user, system = (read(f"study_{kind}_attributes").grouped("study_id") for kind in ("user", "system"))
    studies = {
        number: _Study(
            str(row["study_name"]),
            [StudyDirection[d["direction"]] for d in sorted(directions[number], key=lambda d: d["objective"])],
            _attributes(user[number]),
            _attributes(system[number]),
        )
        for number, row in read("studies").rows.items()
        if directions.get(number)
    }
    parts = {name: read(f"trial_{name}") for name in ("params", "values", "intermediate_values")}
    parts |= {name: read(f"trial_{name}") for name in ("user_attributes", "system_attributes")}
    # A candidate that lacks a choice would be another one.
    suspects = parts["params"].beside_lost("trial_id")
    grouped = {name: table.grouped("trial_id") for name, table in parts.items()}
    for number, row in sorted(read("trials").rows.items()):
        study = studies.get(row["study_id"])
        trial = _trial(row, {name: rows.get(number, []) for name, rows in grouped.items()})
        if study is None or trial is None or number in suspects or (parts["params"].lost and not trial.params):
            continue
        if trial.state != TrialState.COMPLETE or len(trial.values) == len(study.directions):
            study.trials.append(trial)
    return list(studies.values())


def _trial(row: Row, parts: dict[str, list[Row]]) -> FrozenTrial | None:
    """A trial of its rows; None where they make none."""
    try:
        distributions = {p["param_name"]: json_to_distribution(p["distribution_json"]) for p in parts["params"]}
        values = [_number(v["value"], v["value_type"]) for v in sorted(parts["values"], key=lambda v: v["objective"])]
        trial = FrozenTrial(
            number=0,
            state=TrialState[row["state"]],
            value=None,
            values=values or None,
            datetime_start=_local_time(row["datetime_start"]),
            datetime_complete=_local_time(row["datetime_complete"]),
            params={
                p["param_name"]: distributions[p["param_name"]].to_external_repr(p["param_value"])
                for p in parts["params"]
            },
            distributions=distributions,
            user_attrs=_attributes(parts["user_attributes"]),
            system_attrs=_attributes(parts["system_attributes"]),
            intermediate_values={
                v["step"]: _number(v["intermediate_value"], v["intermediate_value_type"])
                for v in parts["intermediate_values"]
            },
            trial_id=0,
        )
        trial._validate()
    except (KeyError, ValueError, TypeError, IndexError, AttributeError):
        return None
    return trial


def _attributes(rows: Iterable[Row]) -> Row:
    found = {}
    for row in rows:
        try:
            found[str(row["key"])] = json.loads(row["value_json"])
        except (ValueError, TypeError):
            continue
    return found


def _number(value: float | None, kind: str) -> float:
    special = _NUMBERS[kind]
    return float(value) if special is None and value is not None else float(special or math.nan)


def _local_time(text: str | None) -> datetime | None:
    """Optuna keeps UTC and hands out local time."""
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _write(path: Path, studies: list[_Study]) -> None:
    create_database(path)
    storage = optuna.storages.RDBStorage(sqlite_url(path))
    # It gets its place when it is whole: no need to have each row on the disk before the next.
    event.listen(storage.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    storage.engine.dispose()
    for study in studies:
        number = storage.create_new_study(study.directions, study.name)
        for key, value in study.user_attrs.items():
            storage.set_study_user_attr(number, key, value)
        for key, value in study.system_attrs.items():
            storage.set_study_system_attr(number, key, value)
        for trial in study.trials:
            storage.create_new_trial(number, trial)
    storage.engine.dispose()
