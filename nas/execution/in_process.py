"""Evaluation in this process, one candidate after another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from nas.execution.executor import EvaluationError


class InProcess:
    """Evaluates at once, and returns a future that is done."""

    workers = 1

    def __init__(self, evaluate: Callable[[Any, float], Any]) -> None:
        self._evaluate = evaluate

    def submit(self, candidate: Any, fidelity: float, *, alternative: bool = False) -> Future[Any]:
        """Evaluate ``candidate``; an exception becomes an EvaluationError of the future."""
        evaluate = self._evaluate.alternative if alternative else self._evaluate  # type: ignore[attr-defined]
        future: Future[Any] = Future()
        try:
            future.set_result(evaluate(candidate, fidelity))
        except Exception as error:
            future.set_exception(EvaluationError(f"{type(error).__name__}: {error}", retry_may_help=True))
        return future

    def close(self) -> None:
        """Nothing is left to end."""
