"""Makes sure that Ctrl-C always ends a command."""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_AGAIN_SECONDS = 0.05


@contextmanager
def no_interrupt_lost() -> Iterator[None]:
    """Inside, a KeyboardInterrupt that falls into a finalizer or a callback of a weak reference is raised again.

    Python prints what is raised there and continues, as if the user had not pressed Ctrl-C.
    """
    earlier = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            earlier(unraisable)
            return
        again = threading.Timer(_AGAIN_SECONDS, _thread.interrupt_main)  # this call has to return first
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = earlier
