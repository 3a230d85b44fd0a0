"""How long calls of a storage take, apart from all else."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from optuna.storages import BaseStorage


class Timed:
    """Adds up the seconds that the thread which made this spends inside a storage's methods."""

    def __init__(self, storage: BaseStorage) -> None:
        self.storage, self.seconds = storage, 0.0
        self._thread, self._inside = threading.get_ident(), False
        for name in dir(BaseStorage):
            if not name.startswith("_") and callable(getattr(BaseStorage, name)):
                setattr(storage, name, self._timed(getattr(storage, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*arguments: Any, **named: Any) -> Any:
            if self._inside or threading.get_ident() != self._thread:
                return method(*arguments, **named)
            self._inside, began = True, time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - began
                self._inside = False

        return timed
