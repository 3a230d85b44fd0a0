"""A temporary folder that is cleaned up even if the process is killed."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX, _LOCK = "fitnas-", "in-use.lock"
_YOUNG_SECONDS = 60.0  # it may not be locked yet


class TemporaryFolder:
    """A new folder; those that killed processes left are removed when one is made.

    >>> with TemporaryFolder() as path:
    ...     path.is_dir()
    True
    >>> path.exists()
    False
    """

    def __init__(self) -> None:
        _remove_abandoned(Path(tempfile.gettempdir()))
        self._folder = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        self._lock = FileLock(self.path / _LOCK, thread_local=False)
        self._lock.acquire()  # the system frees it when this process ends in any way

    def cleanup(self) -> None:
        """Remove it."""
        self._lock.release()
        self._folder.cleanup()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.cleanup()


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        lock = folder / _LOCK
        try:
            if time.time() - lock.stat().st_mtime > _YOUNG_SECONDS:
                with FileLock(lock, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
        except (OSError, Timeout):  # another user's, in use, or removed by another process
            continue
