"""How much faster a search with several workers is, and what a shared storage costs: trials that sleep.

    python tests/benchmarks/search_workers.py --minutes 10

The case "processes / N" is one search in memory whose N worker processes sleep; "postgresql / N" are N processes that
each call ``nas.search`` with one study in a PostgreSQL server of this machine. Candidates are drawn at random, and each
worker gets 20. The clock runs from the first evaluation's begin to the last one's end, all workers being ready before.
``outside_ms`` is the time of a worker that is not slept, for each trial, ``storage_ms`` the part of it that is spent
inside the storage's methods.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import optuna

sys.path.insert(0, str(Path(__file__).parents[2]))
import nas
from nas.execution.worker_processes import WorkerProcesses
from nas.samplers.registry import random
from nas.storages.open_storage import open_storage
from tests.benchmarks.lines import extend
from tests.benchmarks.timed_storage import Timed
from tests.postgres import postgres_server

NAME = "search_workers"
COUNTS = (1, 2, 4)
SLEEP, EACH = 0.5, 20


def space(trial: Any) -> tuple[int, ...]:
    """One of four billion candidates, so that none is met twice."""
    return tuple(trial.suggest_int(f"choice{i}", 0, 15) for i in range(8))


def cost(candidate: tuple[int, ...]) -> dict[str, float]:
    """What a candidate costs."""
    return {"size": float(sum(candidate))}


def sleeping(candidate: tuple[int, ...], fidelity: float) -> float:
    """An evaluation that needs no processor."""
    time.sleep(SLEEP)
    return sum(candidate) / 120


def _settings(workers: int, seed: int) -> dict[str, Any]:
    return {"cost": cost, "n_trials": EACH * workers, "seed": seed, "sampler": random}


def _facts(trials: list[optuna.trial.FrozenTrial], workers: int, storage_seconds: float) -> dict[str, Any]:
    done = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len(done) == EACH * workers
    begin = min(trial.datetime_start for trial in done if trial.datetime_start)
    end = max(trial.datetime_complete for trial in done if trial.datetime_complete)
    seconds = (end - begin).total_seconds()
    return {
        "per_second": round(len(done) / seconds, 3),
        "outside_ms": round(1e3 * (workers * seconds / len(done) - SLEEP), 2),
        "storage_ms": round(1e3 * storage_seconds / len(done), 2),
    }


def in_processes(workers: int, seed: int) -> dict[str, Any]:
    """One search in memory."""
    executor = WorkerProcesses(sleeping, workers)
    for future in [executor.submit((0,), 1.0) for _ in range(workers)]:
        future.result()  # every process is there
    storage = optuna.storages.InMemoryStorage()
    timed = Timed(storage)
    study = nas.search(space, sleeping, executor=executor, storage=storage, alone=True, **_settings(workers, seed))
    return _facts(study.get_trials(), workers, timed.seconds)


def _worker(address: str, workers: int, seed: int, ready: Any, result: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = open_storage(address)
    assert storage is not None
    timed = Timed(storage)
    ready.wait()
    nas.search(space, sleeping, storage=storage, study_name="sleeping", **_settings(workers, seed))
    result.put(timed.seconds)


def on_postgresql(address: str, workers: int, seed: int) -> dict[str, Any]:
    """Several searches that share a study."""
    open_storage(address)  # makes the tables
    context = multiprocessing.get_context("spawn")
    ready, result = context.Barrier(workers), context.Queue()
    # Each worker draws candidates of its own.
    processes = [
        context.Process(target=_worker, args=(address, workers, 100 * seed + i, ready, result)) for i in range(workers)
    ]
    for process in processes:
        process.start()
    seconds = sum(result.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    study = optuna.load_study(study_name="sleeping", storage=open_storage(address))
    return _facts(study.get_trials(), workers, seconds)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with postgres_server() as server:

        def measure(case: str, seed: int) -> dict[str, Any]:
            kind, _, count = case.partition(" / ")
            if kind == "processes":
                return in_processes(int(count), seed)
            return on_postgresql(server.new_database("sleeping"), int(count), seed)

        cases = [
            (f"{kind} / {count}", seed)
            for seed in range(given.seeds)
            for count in COUNTS
            for kind in ("processes", "postgresql")
        ]
        extend(NAME, cases, measure, given.minutes)


if __name__ == "__main__":
    main()
