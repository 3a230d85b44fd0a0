"""A zip or tar of a folder of images, unpacked into the cache folder: by sizes and names that are checked first."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from filelock import FileLock

from compress.data.sources.folder_layout import is_hidden, is_image, is_table
from hw_profiles.errors import InputError, short_reason
from hw_profiles.user_folders import cache_folder

_MOST_FILES = 2_000_000
_MOST_TIMES, _MOST_BYTES = 100, 256 * 1024**2  # images hardly shrink: what unpacks to more than both is a bomb
_LARGEST_FILE = 1024**3
_SPARE_BYTES = 64 * 1024**2
_KEPT_SECONDS = 30 * 24 * 3600
_BLOCK = 1024**2
_LONGEST_NAME = 1000
_MAGIC = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
_DECOMPRESSED: dict[str, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
_DAMAGED = (
    gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
    RuntimeError,
)  # fmt: skip
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)


def is_archive(path: Path) -> bool:
    """Whether a file begins as a zip or tar (also compressed by gzip, bzip2 or xz) does."""
    return path.is_file() and _kind(path) is not None


def unpacked(path: Path) -> Path:
    """The folder of the cache that holds an archive's images and tables; files of other kinds lie there empty.

    An archive is unpacked once. Its folder is removed when nobody used it for 30 days.

    Raises:
        InputError: a damaged archive, a name that leads out of the folder, a link, or one that unpacks to far more
            than it holds.
        OSError: no room on the disk.
    """
    known = path.stat()
    name = hashlib.sha256(f"1 {path.resolve()} {known.st_size} {known.st_mtime_ns}".encode()).hexdigest()[:32]
    folder = cache_folder() / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    target, partial = folder / name, folder / f"{name}.partial"
    with FileLock(folder / f"{name}.lock"):
        if not target.is_dir():
            _remove_unused(folder)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                _Unpacking(path, partial).run()
                partial.replace(target)
            except _DAMAGED as error:
                raise InputError(f"--data {path}: truncated or damaged archive ({short_reason(error)})") from None
            except OSError as error:  # such as a name that is too long, or a file of the name of a folder
                if error.errno in _DISK_FAULTS:
                    raise
                raise InputError(f"--data {path}: cannot be unpacked ({short_reason(error)})") from None
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        os.utime(target)
    return target


def _kind(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(512)
    found = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    return found or ("tar" if start[257:262] == b"ustar" else None)


class _Unpacking:
    """Members are written one after the other, and counted as they come, whatever their headers say."""

    def __init__(self, archive: Path, target: Path) -> None:
        self.archive = archive
        self.target = target
        self.room = max(_MOST_TIMES * archive.stat().st_size, _MOST_BYTES)
        self.names: set[str] = set()
        self.count = 0

    def run(self) -> None:
        """Unpack all members."""
        kind = _kind(self.archive)
        if kind == "zip":
            self._zip()
        else:
            opened = _DECOMPRESSED.get(str(kind), open)
            with opened(self.archive, "rb") as file:
                self._tar(cast("IO[bytes]", _Counted(file, self)))

    def _zip(self) -> None:
        with zipfile.ZipFile(self.archive) as archive:
            for member in archive.infolist():
                mode = member.external_attr >> 16
                if mode and (mode & 0o170000) not in (0, 0o100000, 0o040000):
                    self._refuse(member.filename, "is a link or a device")
                if member.flag_bits & 1:
                    self._refuse(member.filename, "is encrypted")
                if not member.filename.replace("\\", "/").endswith("/"):
                    with self._checked(member.filename, member.file_size) as path:
                        if path is not None:
                            with archive.open(member) as source:
                                self._write(member.filename, source, path)

    def _tar(self, file: IO[bytes]) -> None:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # of millions of members none is kept
                if member.isdir():
                    continue
                if not member.isreg():
                    self._refuse(member.name, "is a link or a device")
                with self._checked(member.name, member.size) as path:
                    source = archive.extractfile(member) if path is not None else None
                    if path is not None and source is not None:
                        self._write(member.name, source, path)
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it is cut off")

    @contextmanager
    def _checked(self, name: str, size: int) -> Iterator[Path | None]:
        """The file that a member becomes; None where an empty one does, of a kind that nobody reads."""
        self.count += 1
        if self.count > _MOST_FILES:
            self._refuse(name, f"is one of more than {_MOST_FILES:,} files")
        place = self._place(name)
        path = self.target / place
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted = (is_image(place.name) or is_table(place.name)) and not any(map(is_hidden, place.parts[:-1]))
        if not wanted:
            path.touch()
            yield None
            return
        if size > _LARGEST_FILE:
            self._refuse(name, f"takes {size:,} bytes, at most {_LARGEST_FILE:,} are read")
        self.take(size, name, charge=False)
        if shutil.disk_usage(self.target).free < size + _SPARE_BYTES:
            raise OSError(errno.ENOSPC, "no room to unpack the archive", str(self.target))
        yield path

    def _place(self, name: str) -> PurePosixPath:
        place = PurePosixPath(name.replace("\\", "/"))
        inside = not place.is_absolute() and ".." not in place.parts and bool(place.parts)
        if not inside or ":" in place.parts[0] or "\0" in name or len(name) > _LONGEST_NAME:
            self._refuse(name, "leads out of the folder")
        key = place.as_posix()
        if key in self.names:
            self._refuse(name, "is there twice")
        self.names.add(key)
        return place

    def take(self, size: int, name: str, *, charge: bool = True) -> None:
        """Count bytes that were unpacked; refuse an archive of too many."""
        if size > self.room:
            limit = max(_MOST_TIMES * self.archive.stat().st_size, _MOST_BYTES)
            self._refuse(name, f"takes the archive to more than {limit:,} bytes, {_MOST_TIMES} times its size")
        if charge:
            self.room -= size

    def _write(self, name: str, source: IO[bytes], path: Path) -> None:
        total = 0
        with path.open("xb") as file:
            while block := source.read(_BLOCK):
                total += len(block)
                self.take(len(block), name)
                if total > _LARGEST_FILE:
                    self._refuse(name, f"takes more than {_LARGEST_FILE:,} bytes")
                file.write(block)

    def _refuse(self, name: str, why: str) -> None:
        raise InputError(f"--data {self.archive}: {name[:200]!r} in it {why}; nothing was unpacked")


class _Counted:
    """A decompressed tar; a header that would take much memory or skip a huge amount of data is rejected."""

    def __init__(self, file: IO[bytes], unpacking: _Unpacking) -> None:
        self._file = file
        self._unpacking = unpacking
        self._furthest = 0

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, 64 MiB at most at once."""
        if not 0 <= size <= 64 * _BLOCK:
            raise tarfile.ReadError("a header of more than 64 MiB")
        return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to a place; how far is limited as what is written is."""
        if whence == 0 and place > self._furthest:
            if place > _MOST_TIMES * self._unpacking.archive.stat().st_size + _MOST_BYTES:
                raise tarfile.ReadError("it unpacks to far more than it holds")
            self._furthest = place
        return self._file.seek(place, whence)

    def tell(self) -> int:
        """The place."""
        return self._file.tell()

    def close(self) -> None:
        """Nothing: whoever opened the file closes it."""


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - _KEPT_SECONDS
    for path in folder.iterdir():
        if path.is_dir() and path.stat().st_mtime < oldest:
            shutil.rmtree(path, ignore_errors=True)
