"""Tables that lie in a folder of images: ``labels.csv`` and ``groups.csv``."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean

_LARGEST = 256 * 1024**2
_DELIMITERS = (",", ";", "\t")
_COLUMNS: Mapping[str, Sequence[str]] = {
    "file": ("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_path", "name", "id"),
    "label": ("label", "class", "class_name", "category", "target"),
    "group": ("group", "group_id"),
    "split": ("split", "subset"),
}
_HINTS = 1000


def file_key(path: str) -> str:
    """A path as two writings of it compare: with slashes, accents composed.

    >>> file_key("./cat" + chr(92) + "e" + chr(0x301) + ".png") == "cat/" + chr(0xE9) + ".png"
    True
    """
    return unicodedata.normalize("NFC", PurePosixPath(path.replace("\\", "/")).as_posix())


class FilesByName:
    """The files of a folder, by their paths from there or whole paths, and where only one has it by their name, also
    without its suffix."""

    def __init__(self, paths: Mapping[str, Path], folder: Path) -> None:
        self.paths = paths
        self._tops = [file_key(each.as_posix()) + "/" for each in (folder.absolute(), folder.resolve())]
        self._named: dict[str, list[str]] = {}
        for key in paths:
            name = PurePosixPath(key)
            for each in {name.name, name.stem}:
                self._named.setdefault(each, []).append(key)

    def key(self, table: Path, name: str) -> str:
        """The path of a file that a table names.

        Raises:
            InputError: there is none, or several.
        """
        for top in self._tops:
            name = name.removeprefix(top)
        if name in self.paths:
            return name
        found = self._named.get(name, [])
        if len(found) > 1:
            raise InputError(f"{table}: {name!r} may be {found[0]!r} or {found[1]!r}; name the folder too")
        if not found:
            hint = did_you_mean(name, sorted(self.paths)[:_HINTS])
            raise InputError(f"{table}: {name!r} is not an image in this folder{hint}")
        return found[0]


def read_table(path: Path, value: str) -> dict[str, str]:
    """The ``value`` ("label", "group" or "split") of each file, of a table of UTF-8 with a header that names both
    columns, among others; paths from the table's folder. Commas, semicolons or tabs part the columns.

    Raises:
        InputError: another header, a line without both, a file with two lines, or a table above 256 MiB.
    """
    if path.stat().st_size > _LARGEST:
        raise InputError(f"{path}: must be at most {_LARGEST:,} bytes, got {path.stat().st_size:,}")
    found: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(_LARGEST)
            file.seek(0)
            rows = csv.reader(file, delimiter=max(_DELIMITERS, key=first.count), skipinitialspace=True)
            header = next(rows, [])
            places = _places(path, header, value)
            for row in rows:
                if not any(map(str.strip, row)):
                    continue
                cells = [row[i].strip() for i in places] if len(row) == len(header) else [""]
                if not all(cells):
                    raise InputError(
                        f"{path}: line {rows.line_num} must be a file and its {value}, got {','.join(row)[:80]!r}"
                    )
                name = file_key(cells[0])
                if name in found:
                    raise InputError(f"{path}: {name!r} has two rows, the second in line {rows.line_num}")
                found[name] = cells[1]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a UTF-8 table ({error})") from None
    return found


def has_column(path: Path, value: str) -> bool:
    """Whether the header of a table names a column of that ``value``."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first = file.readline(_LARGEST)
    header = next(csv.reader([first], delimiter=max(_DELIMITERS, key=first.count), skipinitialspace=True), [])
    return any(name.strip().casefold() in _COLUMNS[value] for name in header)


def _places(path: Path, header: Sequence[str], value: str) -> list[int]:
    """Where the columns of the files and of their ``value`` stand."""
    names = [name.strip().casefold() for name in header]
    found = [next((names.index(name) for name in _COLUMNS[column] if name in names), -1) for column in ("file", value)]
    if min(found) < 0:
        raise InputError(f"{path}: the first line must be 'file,{value}', got {','.join(header)[:80]!r}")
    return found
