"""What the engine of the search takes for each trial, without its sampler, and how much memory it keeps.

    python tests/benchmarks/search_overhead.py --minutes 10

Proposals of 20 choices are drawn at random and evaluated in no time; about a tenth of them break the budget. "storage"
is the time inside the storage's methods, "engine" all other time; both are means of the trials 901 to 1,000, in
milliseconds. The case "growth" makes 10,000 proposals in memory, and says by how many megabytes the process grew from
the hundredth on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna

sys.path.insert(0, str(Path(__file__).parents[2]))
import nas
from nas.samplers.registry import random
from nas.storages.open_storage import open_storage
from tests.benchmarks.lines import extend
from tests.benchmarks.timed_storage import Timed

NAME = "search_overhead"
CHOICES, LEVELS = 20, 4
FILES = {"memory": None, "SQLite": "study.db", "journal": "study.journal"}
TRIALS, PROPOSALS = 1000, 10_000


def space(trial: Any) -> tuple[int, ...]:
    """A candidate of 20 choices."""
    return tuple(trial.suggest_categorical(f"choice{i}", tuple(range(LEVELS))) for i in range(CHOICES))


def _cost(candidate: tuple[int, ...]) -> dict[str, float]:
    return {"size": float(sum(candidate)), "depth": float(candidate[0])}


def _accuracy(candidate: tuple[int, ...], fidelity: float) -> float:
    return sum(candidate) / (CHOICES * LEVELS)


def _search(storage: optuna.storages.BaseStorage, n_proposals: int, seed: int, on_trial: Any) -> None:
    def seen(study: optuna.Study) -> None:
        found.append(time.perf_counter())
        on_trial(len(found))
        if len(found) == n_proposals:
            raise _Enough

    found: list[float] = []
    with suppress(_Enough):
        nas.search(
            space, _accuracy, cost=_cost, budget={"size": 37}, n_trials=None, timeout=3600,
            seed=seed, sampler=random, storage=storage, alone=True, on_trial=seen,
        )  # fmt: skip


class _Enough(Exception):  # noqa: N818
    """As many proposals as are looked at."""


def times(file: str | None, seed: int) -> dict[str, Any]:
    """Milliseconds of one trial among the last hundred."""
    with tempfile.TemporaryDirectory() as folder:
        storage = optuna.storages.InMemoryStorage() if file is None else open_storage(Path(folder) / file)
        assert storage is not None
        timed = Timed(storage)
        marks: dict[int, tuple[float, float]] = {}

        def note(number: int) -> None:
            if number in (TRIALS - 100, TRIALS):
                marks[number] = (time.perf_counter(), timed.seconds)

        _search(storage, TRIALS, seed, note)
    (began, stored), (ended, stored_at_end) = marks[TRIALS - 100], marks[TRIALS]
    in_storage = stored_at_end - stored
    return {"engine_ms": round(10 * (ended - began - in_storage), 3), "storage_ms": round(10 * in_storage, 3)}


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _grown(seed: int, result: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sizes: dict[int, float] = {}
    began = time.perf_counter()

    def note(number: int) -> None:
        if number in (100, PROPOSALS):
            sizes[number] = _resident_mb()

    _search(optuna.storages.InMemoryStorage(), PROPOSALS, seed, note)
    seconds = time.perf_counter() - began
    result.put(
        {"grown_mb": round(sizes[PROPOSALS] - sizes[100], 1), "ms_per_trial": round(1e3 * seconds / PROPOSALS, 3)}
    )


def growth(seed: int) -> dict[str, Any]:
    """In a process of its own, so that nothing was freed before that could be used again."""
    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    process = context.Process(target=_grown, args=(seed, result))
    process.start()
    found: dict[str, Any] = result.get()
    process.join()
    return found


def measure(case: str, seed: int) -> dict[str, Any]:
    """One line."""
    return growth(seed) if case == "growth" else times(FILES[case], seed)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    cases = [(case, seed) for seed in range(given.seeds) for case in (*FILES, "growth")]
    extend(NAME, cases, measure, given.minutes)


if __name__ == "__main__":
    main()
