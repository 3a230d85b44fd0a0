"""A proposal is written as a whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nas.storages.delayed_trial import DelayedTrial

STORAGES = ("memory", "sqlite", "journal")


def storage_of(kind: str, folder: Path) -> BaseStorage:
    if kind == "memory":
        return InMemoryStorage()
    if kind == "sqlite":
        return RDBStorage(f"sqlite:///{folder / 's.db'}")
    return JournalStorage(JournalFileBackend(str(folder / "s.journal")))


@pytest.mark.parametrize("kind", STORAGES)
@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.RUNNING])
def test_a_trial_is_stored_when_it_is_written_with_all_that_was_said(
    kind: str, state: TrialState, tmp_path: Path
) -> None:
    backend = storage_of(kind, tmp_path)
    study = optuna.create_study(storage=backend, study_name="s", directions=["maximize", "minimize"])
    delayed = DelayedTrial(backend)
    trial = optuna.Study("s", delayed).ask()
    trial.suggest_categorical("kind", ("a", "b"))
    trial.suggest_int("width", 8, 64, step=8)
    trial.suggest_float("rate", 1e-3, 1, log=True)
    trial.set_user_attr("cost", {"size": 3})
    trial.set_constraint("size", 0.5)
    assert study.trials == []
    written = delayed.write(trial._trial_id, state)
    [stored] = study.trials
    assert stored == written
    assert stored.state == state
    assert stored.params == trial.params
    assert stored.distributions == trial.distributions
    assert stored.user_attrs == {"cost": {"size": 3}}
    assert stored.constraints == {"size": 0.5}
    assert stored.datetime_start is not None
    assert (stored.datetime_complete is not None) == state.is_finished()


@pytest.mark.parametrize("kind", STORAGES)
def test_a_trial_that_goes_on_is_an_ordinary_one(kind: str, tmp_path: Path) -> None:
    backend = storage_of(kind, tmp_path)
    study = optuna.create_study(storage=backend, study_name="s")
    delayed = DelayedTrial(backend)
    trial = optuna.Study("s", delayed).ask()
    trial.suggest_int("x", 0, 9)
    written = delayed.write(trial._trial_id)
    delayed.set_trial_user_attr(written._trial_id, "why", "because")
    study.tell(written.number, 0.25)
    assert study.trials[0].value == 0.25
    assert study.trials[0].user_attrs == {"why": "because"}


def test_a_sampler_that_writes_into_the_trial_may_do_so(tmp_path: Path) -> None:
    """NSGA-II notes generations in attributes of trials while it proposes."""
    backend = storage_of("sqlite", tmp_path)
    study = optuna.create_study(storage=backend, study_name="s", directions=["maximize", "minimize"])
    delayed = DelayedTrial(backend)
    asking = optuna.Study("s", delayed)
    asking.sampler = optuna.samplers.NSGAIISampler(population_size=4, seed=0)
    for _ in range(12):
        trial = asking.ask()
        x = trial.suggest_int("x", 0, 9)
        study.tell(delayed.write(trial._trial_id).number, [x, -x])
    generations = [value for t in study.trials for key, value in t.system_attrs.items() if "generation" in key]
    assert max(generations) >= 2


def test_a_trial_that_is_not_written_is_forgotten_by_the_next(tmp_path: Path) -> None:
    backend = storage_of("journal", tmp_path)
    study = optuna.create_study(storage=backend, study_name="s")
    delayed = DelayedTrial(backend)
    asking = optuna.Study("s", delayed)
    asking.ask().suggest_int("x", 0, 9)
    second = asking.ask()
    second.suggest_int("y", 0, 9)
    delayed.write(second._trial_id)
    assert [set(trial.params) for trial in study.trials] == [{"y"}]
