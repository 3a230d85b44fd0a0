"""Tables that lie in a folder of images: ``labels.csv`` and ``groups.csv``."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from hw_profiles.errors import InputError

_LARGEST = 256 * 1024**2


def read_table(path: Path, value: str) -> dict[str, str]:
    """The ``value`` of each file, of a table of UTF-8 with the header ``file,VALUE``; paths from the table's folder.

    Raises:
        InputError: another header, a line without both, a file with two lines, or a table above 256 MiB.
    """
    if path.stat().st_size > _LARGEST:
        raise InputError(f"{path}: must be at most {_LARGEST:,} bytes, got {path.stat().st_size:,}")
    found: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip().casefold() for name in next(rows, [])]
            if header != ["file", value]:
                raise InputError(f"{path}: the first line must be 'file,{value}', got {','.join(header)[:80]!r}")
            for row in rows:
                if not row:  # an empty line
                    continue
                if len(row) != 2 or not row[0] or not row[1]:
                    raise InputError(
                        f"{path}: line {rows.line_num} must be a file and its {value}, got {','.join(row)[:80]!r}"
                    )
                name = PurePosixPath(row[0].replace("\\", "/")).as_posix()
                if name in found:
                    raise InputError(f"{path}: {name!r} has two rows, the second in line {rows.line_num}")
                found[name] = row[1].strip()
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a UTF-8 table ({error})") from None
    return found
