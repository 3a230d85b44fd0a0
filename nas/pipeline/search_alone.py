"""``nas search`` without a final training, and workers that join a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from compress.atomic_files import write_text
from compress.progress import Listener, progress, progress_to
from hw_profiles.spelling_suggestions import check_known
from hw_profiles.user_folders import cache_folder
from nas.config import Config, load_config
from nas.engine.pareto import pareto_front
from nas.errors import InputError, user_input
from nas.execution.kept_processes import kept_processes
from nas.execution.worker_count import Layout
from nas.execution.worker_processes import available_cores
from nas.pipeline.job import Job, prepare
from nas.pipeline.planning import planned_search
from nas.pipeline.run_folder import check_config, check_data, check_files, check_init, open_folder
from nas.pipeline.search_phase import check_feasible, chosen_network, search_candidates, searched_study
from nas.pipeline.shared_study import check_record, device_of, download_init, read_record, recipe_of, record_of
from nas.pipeline.time_budget import Clock
from nas.pipeline.time_plan import TimePlan
from nas.results.trials_csv import trials_csv
from nas.samplers.trial_attributes import COST, ENDED, started
from search_spaces.arch import Arch

_REQUIRED = ("storage", "data")
_WORKER_SETTINGS = (*_REQUIRED, "workers", "artifacts", "executor", "address", "cpus", "gpus")
"""Settings that each worker of a search has for itself."""


@dataclass(frozen=True, slots=True)
class NetworkSearch:
    """A finished search: its folder, the Optuna study, the selected architecture and, with a time limit, the
    plan."""

    folder: Path
    study: optuna.Study
    winner: Arch
    plan: TimePlan | None

    @property
    def rows(self) -> optuna.Study:
        """The candidates (see :func:`nas.records`)."""
        return self.study

    def facts(self) -> dict[str, Any]:
        """The winner, the front of accuracy and latency, the counts and the plan, in JSON types."""
        trials = self.study.get_trials(deepcopy=False)
        return {
            "winner": {"id": self.winner.id, "file": str(self.folder / "winner.json")},
            "front": [_facts(trial) for trial in pareto_front(self.study)],
            "evaluated": sum(map(started, trials)),
            "proposed": len(trials),
            "ended": self.study.user_attrs.get(ENDED),
            "plan": None if self.plan is None else self.plan.to_json(),
        }


def _facts(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    costs: Mapping[str, float] = trial.user_attrs[COST]
    return {"trial": trial.number, "val_accuracy": trial.values[0], **costs, "choices": dict(trial.params)}


def search_networks(
    config: str | Path | None = None, *, on_progress: Listener | None = None, **overrides: Any
) -> NetworkSearch:
    """Run the search of :func:`nas.run` without what follows it, as ``nas search`` does.

    The arguments are those of :func:`nas.run`. The folder ``out`` gets study.db, trials.csv and winner.json; the same
    call resumes an interrupted search.

    Raises:
        InputError: wrong input, described in one line.
        NothingFitsError: no network was found that meets the budget.
    """
    with progress_to(on_progress):
        return _search(config, overrides)


def _search(config: str | Path | None, overrides: Mapping[str, Any]) -> NetworkSearch:
    with user_input():
        job = prepare(check_config(load_config(config, overrides)))
    with open_folder(job.config) as folder, kept_processes():
        check_data(folder, job.data)
        check_files(folder, job.config)
        check_init(folder, job.init_facts)
        clock = Clock(folder / "plan.json", job.config.seconds, {"search": 1.0})
        check_feasible(job, folder)
        with user_input():
            plan = planned_search(job, folder, clock)
            study = searched_study(job, folder, clock, plan)
        write_text(folder / "trials.csv", trials_csv(study))
        winner = chosen_network(job, study, folder / "winner.json")
        clock.save()
    return NetworkSearch(folder, study, winner, plan)


def join_search(study_name: str, *, on_progress: Listener | None = None, **settings: Any) -> optuna.Study:
    """Train candidates of a study that :func:`search_networks` or :func:`nas.run` created in a shared storage, until it
    is complete, as ``nas worker`` does.

    ``settings`` are entries of :class:`nas.Config`: ``storage`` and ``data`` are required; ``workers``, ``artifacts``,
    ``executor``, ``address``, ``cpus`` and ``gpus`` say how this machine works.

    Raises:
        InputError: a missing or unknown setting, no such study, or one that was created with other images or another
            search space.
    """
    with progress_to(on_progress):
        return _join(study_name, settings)


def _join(study_name: str, where: Mapping[str, Any]) -> optuna.Study:
    with user_input():
        for name in where:
            check_known("unknown setting", name, _WORKER_SETTINGS)
        if missing := [name for name in _REQUIRED if where.get(name) is None]:
            raise InputError(f"join_search needs {' and '.join(_REQUIRED)}, {missing[0]} is missing")
        _, record = read_record(str(where["storage"]), study_name)
        config = Config(**record["config"], study=study_name, **where)
        job = _job(config, record)
        layout = _layout(config)
    with progress(f"worker of {study_name}") as report, kept_processes(), user_input():

        def seen(study: optuna.Study) -> None:
            begun = sum(map(started, study.get_trials(deepcopy=False)))
            report(min(1.0, begun / (config.trials or 1)), f"{begun} candidates trained")

        return search_candidates(job, recipe_of(record), layout, folder=None, timeout=None, on_trial=seen)


def _job(config: Config, record: Mapping[str, Any]) -> Job:
    init = download_init(record, config.artifacts, cache_folder() / "weights")
    device = device_of(record)
    job = prepare(replace(config, init=None if init is None else str(init)), device)
    mine = record_of(config, job.space, job.data, device, recipe_of(record))
    check_record(record, mine, config.study)
    return job


def _layout(config: Config) -> Layout:
    workers = config.workers or 1
    return Layout(workers=workers, threads=max(1, available_cores() // workers), rates={})
