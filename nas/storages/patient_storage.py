"""A storage that waits while its server does not answer, and then continues."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError, SQLAlchemyError

from hw_profiles.errors import InputError
from nas.storages.forwarding_storage import ForwardingStorage

log = logging.getLogger("fitnas")

_SHORTEST_WAIT, _LONGEST_WAIT, _WORTH_A_LINE = 0.05, 5.0, 1.0
# What waiting does not fix: a full disk, a wrong password, no such database, missing rights.
_LASTING = ("disk is full", "no space left", "could not extend file", "authentication failed", "access denied")
_LASTING_STATES = ("53100", "28P01", "28000", "3D000", "42501")


class PatientStorage(ForwardingStorage):
    """Hands every call on to ``backend``, and tries again for ``patience`` seconds while that does not answer.

    ``address`` names the storage in messages and holds no password. ``explain`` turns an error of the backend, as of a
    damaged file, into an :class:`InputError`, or gives None.

    A call whose answer got lost may have been carried out, and nearly all do no harm a second time.
    ``set_trial_state_values`` and, with a template, ``create_new_trial`` look whether that has happened; without a
    template a trial may be left that nobody runs, like that of a worker that died.

    Raises:
        InputError: by any method, when the storage did not answer for ``patience`` seconds.

    >>> from optuna.storages import InMemoryStorage
    >>> PatientStorage(InMemoryStorage(), "memory").get_all_studies()
    []
    """

    def __init__(
        self,
        backend: BaseStorage,
        address: str,
        *,
        patience: float = 120.0,
        explain: Callable[[BaseException], InputError | None] | None = None,
    ) -> None:
        super().__init__(backend)
        self.address, self.patience, self.explain = address, patience, explain

    def _call(self, name: str, *args: Any) -> Any:
        return self._patiently(lambda again: getattr(self.backend, name)(*args))

    def _patiently(self, attempt: Callable[[bool], Any]) -> Any:
        """What ``attempt(again)`` gives; ``again`` says whether an earlier attempt was made."""
        began, wait, again, reported = time.monotonic(), _SHORTEST_WAIT, False, False
        while True:
            try:
                answer = attempt(again)
            except Exception as error:
                self._explained(error)
                left = began + self.patience - time.monotonic()
                if not is_transient(error):
                    raise
                if left <= 0:
                    text = f"the storage {self.address} did not answer for {self.patience:g} s: {innermost(error)}"
                    raise InputError(text) from error
                if not reported and wait >= _WORTH_A_LINE:  # a lock that is held for a moment is not
                    log.warning("storage %s is not responding; waiting: %s", self.address, innermost(error))
                    reported = True
                time.sleep(min(random.uniform(wait / 2, wait), left))
                wait, again = min(2 * wait, _LONGEST_WAIT), True
                continue
            if reported:
                log.warning("the storage %s is responding again", self.address)
            return answer

    def _explained(self, error: Exception) -> None:
        explained = self.explain(error) if self.explain is not None else None
        if explained is not None:
            raise explained from error

    def delete_study(self, study_id: int) -> None:
        """As the backend."""

        def attempt(again: bool) -> None:
            try:
                self.backend.delete_study(study_id)
            except KeyError:
                if not again:
                    raise

        self._patiently(attempt)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As the backend; a trial of this template that an earlier attempt has made is the one."""

        def attempt(again: bool) -> int:
            made = self._made_of(study_id, template_trial) if again and template_trial is not None else None
            return self.backend.create_new_trial(study_id, template_trial) if made is None else made

        return int(self._patiently(attempt))

    def _made_of(self, study_id: int, template: FrozenTrial) -> int | None:
        """The newest trial that is like the template to its attributes and the second in which it began."""
        for trial in reversed(self.backend.get_all_trials(study_id, deepcopy=False)):
            began, wanted = trial.datetime_start, template.datetime_start
            same_time = began == wanted or (
                began is not None and wanted is not None and abs((began - wanted).total_seconds()) < 1
            )
            if same_time and (trial.params, trial.user_attrs, trial.system_attrs, trial.state) == (
                template.params, template.user_attrs, template.system_attrs, template.state
            ):  # fmt: skip
                return trial._trial_id
        return None

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As the backend; a state that an earlier attempt has written is well."""

        def attempt(again: bool) -> bool:
            try:
                return self.backend.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                trial = self.backend.get_trial(trial_id)
                if again and trial.state == state and (trial.values or []) == list(values or []):
                    return True
                raise

        return bool(self._patiently(attempt))


def is_transient(error: BaseException) -> bool:
    """Whether waiting may help against an error of a storage: its server is down or starting, or others hold its locks.

    >>> is_transient(ValueError("a value is too long"))
    False
    """
    return any(_transient_link(link) for link in _chain(error))


def innermost(error: BaseException) -> str:
    """The driver's message on one line, without the statement and its values."""
    links = list(_chain(error))
    drivers = [link.orig for link in links if isinstance(link, DBAPIError) and link.orig is not None]
    cause = drivers[-1] if drivers else links[-1]
    details = getattr(cause, "details", None)  # gRPC
    return " ".join(str(details() if callable(details) else cause).split())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from; an error that another one only happened to follow is none of them.

    But Optuna answers a read that failed with a second one in the same transaction, and what SQLAlchemy says of that is
    not why the first one failed.
    """
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__context__ if isinstance(link, PendingRollbackError) else link.__cause__


def _transient_link(error: BaseException) -> bool:
    if isinstance(error, OperationalError | InterfaceError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    ):
        text = str(error.orig).lower()
        if type(error.orig).__module__ == "sqlite3":
            return "locked" in text or "busy" in text
        state = getattr(error.orig, "pgcode", None)
        return state not in _LASTING_STATES and not any(words in text for words in _LASTING)
    if isinstance(error, SQLAlchemyError) or "grpc" not in sys.modules:
        return False
    return _transient_rpc(error)


def _transient_rpc(error: BaseException) -> bool:
    """Of a gRPC proxy: it does not answer, or its own database does not."""
    import grpc

    if not isinstance(error, grpc.RpcError) or not isinstance(error, grpc.Call):
        return False
    code, details = error.code(), str(error.details())
    return code == grpc.StatusCode.UNAVAILABLE or (
        code == grpc.StatusCode.UNKNOWN and "raised during the commit" in details
    )
