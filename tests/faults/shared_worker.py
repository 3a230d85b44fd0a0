"""A worker of a study that several share, to be killed: python shared_worker.py ADDRESS N_TRIALS NOTES

Each evaluation takes a while, and is noted when it begins.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nas
from nas.storages.open_storage import open_storage

if __name__ == "__main__":
    address, n_trials, notes = sys.argv[1:]

    def evaluate(candidate: tuple[int, int], fidelity: float) -> float:
        with Path(notes).open("a") as file:
            file.write(f"{os.getpid()} {candidate}\n")
        time.sleep(0.15)
        return sum(candidate) / 198

    nas.search(
        lambda trial: (trial.suggest_int("x", 0, 99), trial.suggest_int("y", 0, 99)),
        evaluate,
        cost=lambda candidate: {"size": float(candidate[0])},
        budget={"size": 80},
        n_trials=int(n_trials),
        seed=os.getpid() % 1000,
        storage=open_storage(address),
        study_name="search",
    )
