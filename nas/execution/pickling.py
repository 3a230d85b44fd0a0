"""Pickles for other processes of this machine: large arrays are mapped from files, not copied."""

from __future__ import annotations

import io
import mmap
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

LARGE_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class Packed:
    """A pickle. ``refers_to_main``: to functions or classes of the script that was started.

    ``mapped_bytes``: the arrays that whoever loads it may write to, in memory of its own.
    """

    data: bytes
    refers_to_main: bool = False
    mapped_bytes: int = 0

    def load(self) -> Any:
        """The object. Trusted input only: it comes from a process of our own."""
        return pickle.loads(self.data)


def pack(value: Any, folder: Path | None = None) -> Packed:
    """Pickle ``value``; with a ``folder``, arrays of numpy from 1 MB on are written there, each once.

    Whoever loads the pickle maps these files: what is only read is in memory once, whatever the number of processes.
    An array that may be written to stays so, in a copy that takes memory page by page as it is written to.

    Raises:
        pickle.PicklingError, AttributeError, TypeError: as pickle does.
        OSError: no room on the disk.

    >>> pack([1, 2]).load()
    [1, 2]
    """
    file = io.BytesIO()
    pickler = _Pickler(file, folder)
    pickler.dump(value)
    return Packed(file.getvalue(), pickler.refers_to_main, pickler.mapped_bytes)


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, folder: Path | None) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.folder = folder
        self.refers_to_main = False
        self.mapped_bytes = 0

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type | FunctionType):
            self.refers_to_main |= value.__module__ == "__main__"
        elif self.folder is not None and _is_large_array(value):
            return self._mapped(value, self.folder)
        return NotImplemented

    def _mapped(self, array: Any, folder: Path) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        mode = "c" if array.flags.writeable else "r"
        if mode == "c":
            self.mapped_bytes += array.nbytes
        if _maps_a_whole_file(array):  # such as the cache of images: it is a file already
            order = "C" if array.flags.c_contiguous else "F"
            where = (mode, array.offset, array.shape, order)
            return _map_raw, (str(array.filename), array.dtype, where)
        import numpy as np

        path = folder / f"{len(list(folder.glob('*.npy')))}.npy"
        np.save(path, array, allow_pickle=False)
        return _map_npy, (str(path), mode)


def _is_large_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")  # where nobody has loaded it there are no arrays
    return (
        numpy is not None
        and type(value) in (numpy.ndarray, numpy.memmap)
        and value.nbytes >= LARGE_BYTES
        and not value.dtype.hasobject
    )


def _maps_a_whole_file(array: Any) -> bool:
    return (
        isinstance(array.base, mmap.mmap)  # a view has an array for its base, and keeps the offset of the whole
        and getattr(array, "mode", "c") != "c"  # what was written to a copy is in no file
        and array.filename is not None
        and Path(array.filename).is_file()
    )


def _map_raw(path: str, dtype: Any, where: tuple[Any, ...]) -> Any:
    import numpy as np

    return np.memmap(path, dtype, *where)


def _map_npy(path: str, mode: Any) -> Any:
    import numpy as np

    return np.load(path, mmap_mode=mode, allow_pickle=False).view(np.ndarray)
