"""Evaluates candidates in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from nas.execution.executor import EvaluationError

Evaluate = Callable[[Any, float], Any]


def way_of(evaluate: Evaluate, *, alternative: bool) -> Evaluate:
    """``evaluate``, or its attribute ``alternative`` where that is requested and there."""
    return getattr(evaluate, "alternative", None) or evaluate if alternative else evaluate


class InProcess:
    """Evaluates in this process while ``submit`` is called: the future that it gives is done.

    An exception becomes an EvaluationError; Ctrl-C is raised. Nothing shields this process from a crash.

    >>> InProcess(lambda candidate, fidelity: candidate * fidelity).submit(0.5, 1.0).result()
    0.5
    """

    workers = 1

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate

    def submit(
        self, candidate: Any, fidelity: float, *, alternative: bool = False, seconds: float | None = None
    ) -> Future[Any]:
        """Evaluate; the future holds what ``evaluate`` returned, or raises :class:`EvaluationError`.

        Nothing can end an evaluation in this process after some ``seconds``.
        """
        future: Future[Any] = Future()
        try:
            future.set_result(way_of(self._evaluate, alternative=alternative)(candidate, fidelity))
        except (Exception, SystemExit) as error:
            failure = EvaluationError(f"{type(error).__name__}: {error}".rstrip(": "), retry_may_help=True)
            failure.__cause__ = error
            future.set_exception(failure)
        return future

    def close(self) -> None:
        """Nothing is to be freed."""
