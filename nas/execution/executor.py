"""The interface of executors, which evaluate candidates, and of failed evaluations."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol


class EvaluationError(Exception):
    """An evaluation that gave no accuracy; its text is the cause.

    ``retry_may_help``: whether another number format or memory format may go well, as after a native crash or an
    exception, but not after a time limit.
    """

    def __init__(self, cause: str, *, retry_may_help: bool = False) -> None:
        super().__init__(cause)
        self.retry_may_help = retry_may_help


def shortest(*limits: float | None) -> float | None:
    """The shortest of several limits of time, None where there is none.

    >>> shortest(None, 60, 5), shortest(None)
    (5, None)
    """
    return min((limit for limit in limits if limit is not None), default=None)


class Executor(Protocol):
    """Evaluates candidates, up to ``workers`` at a time.

    It is made for one function ``evaluate(candidate, fidelity)``; where that has an attribute ``alternative``, another
    such function, it can evaluate by that as well.
    """

    workers: int

    def submit(
        self, candidate: Any, fidelity: float, *, alternative: bool = False, seconds: float | None = None
    ) -> Future[Any]:
        """Begin an evaluation; the future holds what ``evaluate`` returned, or raises :class:`EvaluationError`.

        One that takes longer than ``seconds`` is ended where the executor can do that.
        """

    def close(self) -> None:
        """End what is still running, and free all resources."""
