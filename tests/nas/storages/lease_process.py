"""A worker of the tests of leases: holds one trial, and tells its result when it is asked to.

python lease_process.py ADDRESS WORKER SECONDS
"""

from __future__ import annotations

import sys

import optuna

from nas.storages.lease import Lease, new_worker
from nas.storages.open_storage import open_storage

if __name__ == "__main__":
    address, worker, seconds = sys.argv[1:]
    storage = open_storage(address)
    assert storage is not None
    study = optuna.load_study(study_name="search", storage=storage)
    trial = study.ask()
    with Lease(storage, worker.replace("HERE", new_worker()), seconds=float(seconds)) as lease:
        lease.hold(trial._trial_id)
        print("holds", trial.number, flush=True)
        for _ in sys.stdin:
            held = lease.still_held(trial._trial_id)
            if held:
                study.tell(trial, 1.0)
            print("told" if held else "lost", flush=True)
