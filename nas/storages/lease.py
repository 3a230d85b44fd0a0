"""Which worker holds a trial, and whether it lives: signs of life on any storage, without comparing clocks.

A worker writes its name into each trial that it evaluates and, every few seconds, a number that counts up. Another
worker that sees no change for the length of a lease, by its own clock, takes the trial over. Optuna's heartbeat would
need a database, and starts only in ``Study.optimize``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import secrets
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

log = logging.getLogger("fitnas")

LEASE_SECONDS = 30.0
# Attributes of a trial: who holds it; how often it changed hands; its sign of life, which is of no interest to a user.
WORKER, TAKEN_OVER, ALIVE = "worker", "taken_over", "fitnas:alive"

_BEATS = 6  # signs of life in a lease
_MOST_AT_ONCE = 1 / 3  # of a lease may pass as silence between two looks
_SETTLE_SECONDS = 1.0


def new_worker() -> str:
    """A name for a worker in this process, unlike any other: ``machine:process:its start:token``."""
    return f"{_this_machine()}:{os.getpid()}:{_started_at(os.getpid()) or 0}:{secrets.token_hex(4)}"


def is_gone(worker: object) -> bool:
    """Whether a worker ran in a process of this machine that has ended; one of which nothing is known is not gone.

    >>> is_gone(new_worker()), is_gone("elsewhere:1:2:token"), is_gone(None)
    (False, False, False)
    """
    machine, _, process = str(worker).partition(":")
    pid, _, rest = process.partition(":")
    if machine != _this_machine() or not pid.isdecimal() or sys.platform == "win32":
        return False  # on Windows, os.kill with 0 is no question
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    # The number of a process that has ended is given to another one in time, which began later.
    began = _started_at(int(pid))
    return began is not None and str(began) != rest.partition(":")[0]


class Lease:
    """Signs of life of ``worker`` for the trials that it holds, written by a thread until :meth:`close`.

    ``on_beat`` is called each time, as a moment to look after the trials of others (:meth:`LeaseWatch.lapsed`). A
    trial that another worker has taken over is dropped. A storage that fails does not end the thread.
    """

    def __init__(
        self,
        storage: BaseStorage,
        worker: str | None = None,
        *,
        seconds: float = LEASE_SECONDS,
        on_beat: Callable[[], object] | None = None,
    ) -> None:
        self.storage, self.worker, self.seconds = storage, worker or new_worker(), seconds
        self._on_beat = on_beat
        self._held: set[int] = set()
        self._count = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def hold(self, trial_id: int) -> None:
        """Begin to hold a trial, newly asked for or taken over."""
        self.storage.set_trial_user_attr(trial_id, WORKER, self.worker)
        self._held.add(trial_id)
        self._beat(trial_id)

    def release(self, trial_id: int) -> None:
        """Stop to hold a trial: it is finished, or another worker's."""
        self._held.discard(trial_id)

    def still_held(self, trial_id: int) -> bool:
        """Whether the trial is still this worker's, by the storage: to be asked before a result is told."""
        return still_held(self.storage, trial_id, self.worker)

    def close(self) -> None:
        """End the thread; one that waits for a storage that does not answer is left behind."""
        self._closing.set()
        self._thread.join(timeout=1)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closing.wait(self.seconds / _BEATS):
            self._count += 1
            for trial_id in list(self._held):
                self._try(partial(self._beat_if_held, trial_id))
            if self._on_beat is not None:
                self._try(self._on_beat)

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:
            log.debug("the sign of life of this worker could not be written: %s", error)

    def _beat_if_held(self, trial_id: int) -> None:
        if still_held(self.storage, trial_id, self.worker):
            self._beat(trial_id)
        else:  # signs of a worker that was stopped for long would cover for the one that has taken over
            self.release(trial_id)

    def _beat(self, trial_id: int) -> None:
        try:
            self.storage.set_trial_system_attr(trial_id, ALIVE, f"{self.worker} {self._count}")
        except UpdateFinishedTrialError:
            self.release(trial_id)


class LeaseWatch:
    """Which trials no living worker holds, by what one observer sees of them.

    A trial lapses when its signs of life did not change for ``seconds`` of the observer's own clock, beginning when it
    was first seen, or at once when its worker was a process of this machine that is gone. Of the time between two looks
    no more than a third of a lease counts: while the storage is down, or the observer stopped, nobody is dead for it.
    """

    def __init__(self, seconds: float = LEASE_SECONDS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._clock = seconds, clock
        self._seen: dict[int, tuple[str, float]] = {}
        self._looked = clock()
        self._lock = threading.Lock()

    def lapsed(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Of all trials of the study, those that run and that no living worker holds."""
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        with self._lock:
            now = self._clock()
            passed = min(now - self._looked, self.seconds * _MOST_AT_ONCE)
            self._looked = now
            self._seen = {trial._trial_id: self._silence(trial, passed) for trial in running}
            silent = {number for number, (_, silence) in self._seen.items() if silence >= self.seconds}
        return [trial for trial in running if trial._trial_id in silent or is_gone(trial.user_attrs.get(WORKER))]

    def _silence(self, trial: FrozenTrial, passed: float) -> tuple[str, float]:
        """The sign of life of a trial, and for how long it has been that one."""
        worker, sign = str(trial.user_attrs.get(WORKER)), str(trial.system_attrs.get(ALIVE))
        before, silence = self._seen.get(trial._trial_id, ("", 0.0))
        if not sign.startswith(f"{worker} "):  # that of a worker that held it before, or none yet
            sign = before if before.startswith(worker) else worker
        return sign, silence + passed if sign == before else 0.0


def take_over(storage: BaseStorage, lapsed: FrozenTrial, worker: str, *, settle: float = _SETTLE_SECONDS) -> bool:
    """Make ``worker`` the holder of a trial that was seen to have lapsed; False where another one was faster.

    The last name that is written wins: it is read back after ``settle`` seconds. A worker that stopped for longer
    between its look and its writing can win a trial that is evaluated already: so whoever tells a result asks
    :func:`still_held` first, and the storage takes one result only. ``taken_over`` counts the changes.
    """
    trial_id = lapsed._trial_id
    found = storage.get_trial(trial_id)
    if found.state != TrialState.RUNNING or found.user_attrs.get(WORKER) != lapsed.user_attrs.get(WORKER):
        return False
    try:
        storage.set_trial_user_attr(trial_id, WORKER, worker)
        time.sleep(settle * random.uniform(1, 1.5))
        if not still_held(storage, trial_id, worker):
            return False
        storage.set_trial_user_attr(trial_id, TAKEN_OVER, int(found.user_attrs.get(TAKEN_OVER, 0)) + 1)
    except UpdateFinishedTrialError:  # its worker was not dead, and told its result
        return False
    return True


def still_held(storage: BaseStorage, trial_id: int, worker: str) -> bool:
    """Whether a trial runs and ``worker`` holds it."""
    trial = storage.get_trial(trial_id)
    return trial.state == TrialState.RUNNING and trial.user_attrs.get(WORKER) == worker


def _this_machine() -> str:
    """A host's name, and what tells apart machines, containers and starts that share one: a number of a process means
    something within these only."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot, processes = str(uuid.getnode()), ""
    return f"{socket.gethostname()}/{hashlib.sha256(f'{boot} {processes}'.encode()).hexdigest()[:8]}"


def _started_at(pid: int) -> int | None:
    """When a process began, in the kernel's ticks, 0 for one that has ended and is not yet cleared away; None where
    that cannot be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return 0 if fields[0] in "ZX" else int(fields[19])
