"""Arrays of decoded images: small ones in memory, large ones in memory-mapped files of the cache folder."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from compress.atomic_files import read_json, write_json
from hw_profiles.user_folders import cache_folder

LARGEST_IN_MEMORY = 256 * 1024**2
_CHUNK_BYTES = 8 * 1024**2
_FEWEST, _MOST = 16, 256
_SPARE_BYTES = 64 * 1024**2
_KEPT_SECONDS = 30 * 24 * 3600

Missing = list[tuple[int, str]]
Shape = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """``images`` uint8 (N, H, W, C); ``missing``: which of the wanted rows were left out, and why; ``key``: the name of
    the file, None in memory.
    """

    images: NDArray[np.uint8]
    missing: Missing
    key: str | None


def stored_images(shape: Shape, key: Callable[[], str], fill: Callable[[NDArray[np.uint8]], Missing]) -> Stored:
    """An array of ``shape`` made by ``fill``, which writes the first rows and tells which of the wanted were left out.

    Above ``LARGEST_IN_MEMORY`` bytes it is a read-only ``np.memmap`` of a file that is named by ``key()``; where that
    file is there already, ``fill`` is not called. Files that nobody used for 30 days are removed.

    Raises:
        OSError: ENOSPC where the disk has no room for the file.

    >>> stored_images((2, 1, 1, 1), lambda: "none", lambda array: [(1, "broken")]).images.shape
    (1, 1, 1, 1)
    """
    if _bytes(shape) <= LARGEST_IN_MEMORY:
        array = np.empty(shape, np.uint8)
        missing = fill(array)
        return Stored(array[: shape[0] - len(missing)], missing, None)
    name = key()
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):  # one process makes the file, the others wait for it and find it
        found = _find(folder, name, shape)
        if found is None:
            _remove_unused(folder)
            _make(folder, name, shape, fill)
            found = _find(folder, name, shape)
        assert found is not None
    return found


def chunk_size(image_bytes: int) -> int:
    """How many images of that size to work on at once: about 8 MiB of them, at least 16 and at most 256.

    >>> chunk_size(160 * 160 * 3)
    109
    """
    return max(_FEWEST, min(_MOST, _CHUNK_BYTES // max(1, image_bytes)))


def _bytes(shape: Shape) -> int:
    rows, height, width, channels = shape
    return rows * height * width * channels


def _find(folder: Path, name: str, shape: Shape) -> Stored | None:
    data, notes = folder / f"{name}.u8", folder / f"{name}.json"
    if not (data.is_file() and notes.is_file()):
        return None
    try:
        missing = [(int(index), str(why)) for index, why in read_json(notes, "missing")["missing"]]
    except (ValueError, TypeError):  # broken notes: the images are read again
        return None
    kept = (shape[0] - len(missing), *shape[1:])
    if data.stat().st_size != _bytes(kept):
        return None
    for path in (data, notes):
        os.utime(path)
    images = np.memmap(data, np.uint8, "r", shape=kept) if kept[0] else np.empty(kept, np.uint8)
    return Stored(images, missing, name)


def _make(folder: Path, name: str, shape: Shape, fill: Callable[[NDArray[np.uint8]], Missing]) -> None:
    wanted, free = _bytes(shape), shutil.disk_usage(folder).free
    if wanted + _SPARE_BYTES > free:
        raise OSError(
            errno.ENOSPC,
            f"{wanted / 1e9:.1f} GB are needed for the images and {free / 1e9:.1f} GB are free",
            str(folder),
        )
    partial = folder / f"{name}.partial"
    try:
        with partial.open("w+b") as file:
            _reserve(file.fileno(), wanted)
            array = np.memmap(file, np.uint8, "r+", shape=shape)
            missing = fill(array)
            array.flush()
            del array
            file.truncate(_bytes((shape[0] - len(missing), *shape[1:])))
            os.fsync(file.fileno())
        partial.replace(folder / f"{name}.u8")
    finally:
        partial.unlink(missing_ok=True)
    write_json(folder / f"{name}.json", {"missing": missing})


def _reserve(descriptor: int, count: int) -> None:
    """A hole in the file would end in SIGBUS, not in an error, if the disk filled up while the map is written."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, count)
    else:  # macOS has no such call
        os.ftruncate(descriptor, count)


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - _KEPT_SECONDS
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process was quicker
            if path.suffix != ".lock" and path.stat().st_mtime < oldest:
                path.unlink()
