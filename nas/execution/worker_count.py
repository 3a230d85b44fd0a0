"""Chooses the number of parallel evaluations by a short measurement on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from compress.argument_checks import is_whole
from hw_profiles.errors import InputError
from nas.execution.executor import EvaluationError
from nas.execution.in_process import Evaluate
from nas.execution.worker_processes import WorkerProcesses, available_cores

_LEAST_GAIN = 1.1  # times are noisy, and one worker takes the least memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Workers, the threads of each, and what was measured: evaluations per second by the number of workers.

    >>> Layout.from_json(Layout(workers=2, threads=1, rates={1: 0.5, 2: 0.8}).to_json()).workers
    2
    """

    workers: int
    threads: int
    rates: Mapping[int, float]

    def to_json(self) -> dict[str, Any]:
        """In JSON types, for the folder of a run, which is then resumed with the same layout."""
        return {**asdict(self), "rates": {str(workers): rate for workers, rate in self.rates.items()}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Layout:
        """The inverse of :meth:`to_json`.

        Raises:
            InputError: not such a record.
        """
        try:
            rates = {int(workers): float(rate) for workers, rate in record["rates"].items()}
            layout = cls(workers=record["workers"], threads=record["threads"], rates=rates)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not the layout of workers ({error!r})") from None
        if not is_whole(layout.workers, 1) or not is_whole(layout.threads, 1):
            raise InputError(f"workers and threads must be at least 1, got {layout.workers!r} and {layout.threads!r}")
        return layout


Rate = Callable[[int, int], float]


def measured_layout(
    evaluate: Evaluate, candidate: Any, *, fidelity: float = 1.0, cores: int | None = None, rate: Rate | None = None
) -> Layout:
    """The faster of one worker on all ``cores`` and one worker with one thread on each.

    Each evaluates ``candidate`` once to be warm, and is then timed; several workers must be 10% faster to be taken.
    ``evaluate`` should take as much work for each call, so limit it by steps and not by seconds. ``rate(workers,
    threads)``, evaluations per second, replaces the measurement. With one core nothing is measured.

    Raises:
        EvaluationError: the candidate cannot be evaluated in one worker. Where only several at once fail, as for
            want of memory, one is taken.
        InputError: ``evaluate`` cannot be sent to another process.
    """
    cores = available_cores() if cores is None else cores
    if not is_whole(cores, 1):
        raise InputError(f"cores must be a whole number of at least 1, got {cores!r}")
    if cores == 1:
        return Layout(workers=1, threads=1, rates={})
    measure = rate or (lambda workers, threads: _rate(evaluate, candidate, fidelity, workers, threads))
    rates = {1: measure(1, cores)}
    try:
        rates[cores] = measure(cores, 1)
    except EvaluationError:
        rates[cores] = 0.0
    several = rates[cores] > _LEAST_GAIN * rates[1]
    return Layout(workers=cores if several else 1, threads=1 if several else cores, rates=rates)


def _rate(evaluate: Evaluate, candidate: Any, fidelity: float, workers: int, threads: int) -> float:
    with closing(WorkerProcesses(evaluate, workers, threads=threads)) as executor:
        for _ in range(2):  # the first time loads code and finds kernels
            start = time.perf_counter()
            _results([executor.submit(candidate, fidelity) for _ in range(workers)])
        return workers / (time.perf_counter() - start)


def _results(futures: list[Future[Any]]) -> None:
    wait(futures)
    for future in futures:
        future.result()
