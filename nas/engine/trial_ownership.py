"""Which process works on a trial, and whether that is gone."""

from __future__ import annotations

import os
import socket

from optuna.trial import FrozenTrial

from nas.engine.trial_attributes import WORKER


def this_worker() -> str:
    """This process by host and number."""
    return f"{socket.gethostname()}:{os.getpid()}"


def orphaned(trial: FrozenTrial) -> bool:
    """Whether the process that ran this trial is gone; one on another host is taken to be alive."""
    worker = trial.user_attrs.get(WORKER)
    if worker is None:
        return True
    host, _, pid = str(worker).rpartition(":")
    if host != socket.gethostname() or int(pid) == os.getpid():
        return host == socket.gethostname()
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
