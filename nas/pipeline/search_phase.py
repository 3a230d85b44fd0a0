"""The search of a run: candidates are trained briefly in separate processes, and one is selected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import torch

from compress.atomic_files import read_json, write_json, write_text
from compress.progress import progress
from compress.training.evaluation import training_place
from compress.training.recipe import Recipe, from_random_weights
from nas.config import Config
from nas.engine.candidate_evaluation import CandidateCost, ShortTraining
from nas.engine.feasibility import why_infeasible
from nas.engine.repeated_scores import RepeatedTraining, leading_trials, repeat_scores
from nas.engine.search import ranked_trials, search
from nas.engine.winner_selection import choose_winner
from nas.errors import NothingFitsError, UserFunctionError
from nas.execution.executor import Executor
from nas.execution.ray_tasks import RayTasks
from nas.execution.worker_count import Layout, measured_layout
from nas.execution.worker_processes import WorkerProcesses, available_cores
from nas.pipeline.job import Job
from nas.pipeline.plain_networks import any_plain_network_fits
from nas.pipeline.run_folder import FOLDERS_STUDY
from nas.pipeline.shared_study import publish, record_of, shared_device
from nas.pipeline.stage_plan import LONGEST
from nas.pipeline.time_budget import Clock
from nas.pipeline.time_plan import TimePlan
from nas.samplers.registry import sampler_named
from nas.samplers.trial_attributes import started
from nas.storages.open_storage import open_storage
from search_spaces.arch import Arch

_CANDIDATES = 24  # as many short trainings as a search by time should afford
_CANDIDATE_SECONDS = (1.5, 60.0)
_WORTH_MEASURING = 60.0  # seconds of search from which on the number of workers is measured
_IMAGES_MEASURED = 320
_BEFORE_REPEATS = 0.8  # of the time of a search; the best candidates are scored again in the rest


def check_feasible(job: Job, folder: Path) -> None:
    """End a run in which nothing fits before anything is trained, where costs are estimated.

    Raises:
        NothingFitsError: with the limit that binds and the smallest change that would work.
    """
    if (folder / "study.db").is_file() or job.config.storage is not None or not job.predicts:
        return
    limits = job.search_limits()
    with progress("limits"):
        why = why_infeasible(job.space, CandidateCost(job.device, limits, measured=False), limits, job.config.seed)
        if why is not None and not (job.init is None and any_plain_network_fits(job)):
            raise NothingFitsError(f"{why}{_energy_note(job)}")


def _energy_note(job: Job) -> str:
    """What a limit on energy was turned into."""
    if job.asked.energy_mj is None:
        return ""
    return f"; the limit of {job.asked.energy_mj:g} mJ allows {job.budget.latency_ms:.4g} ms on {job.device.name}"


def searched_study(job: Job, folder: Path, clock: Clock, plan: TimePlan | None = None) -> optuna.Study:
    """The search; candidates are trained in processes of their own, or by Ray.

    The study is kept in ``folder``, or at the storage of the config, where other machines may work on it too. With a
    limit of time each candidate is trained for as long as ``plan`` says where one is trained at a time, or without a
    plan for so long that the time is enough for 24; the best are scored again where the validation images do not tell
    them apart.
    """
    config = job.config
    seconds = clock.seconds_for("search")
    layout = layout_of(job, folder, seconds)
    each = None if seconds is None else plan.candidate_seconds if plan else _seconds_of_each(seconds)
    if each is not None and config.storage is None:
        each = min(each * layout.workers, _CANDIDATE_SECONDS[1])
    epochs = config.search_epochs * (LONGEST if seconds else 1)
    recipe = replace(_recipe(job), epochs=min(epochs, plan.candidate_epochs) if plan else epochs, seconds=each)
    if config.storage is not None:
        publish(config, record_of(config, job.space, job.data, shared_device(job.device), recipe), job.init)
    with progress("search") as report:

        def seen(study: optuna.Study) -> None:
            trials = study.get_trials(deepcopy=False)
            begun = sum(map(started, trials))
            shares = [begun / config.trials] if config.trials else []
            shares += [1 - (clock.left_of("search") or 0.0) / seconds] if seconds else []
            report(min(1.0, max(shares)), f"{begun} candidates trained, {len(trials)} proposed")
            clock.save()

        left = None if seconds is None else max(clock.left_of("search") or 0.0, 1e-3)
        repeats = left is not None and config.storage is None
        timeout = _BEFORE_REPEATS * left if left is not None and repeats else left
        study = search_candidates(job, recipe, layout, folder=folder, timeout=timeout, on_trial=seen)
        if repeats and len(leading_trials(study)) > 1:
            again = _executor(config, RepeatedTraining(short_training(job, recipe)), layout)
            repeat_scores(study, again, clock.left_of("search") or 0.0, each=each or 0.0)
    if config.storage is not None:
        _copy(study, folder / "study.db")
    return study


def _copy(study: optuna.Study, path: Path) -> None:
    """Keep a study that lies elsewhere in the folder as well, so that its report can be drawn again."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    storage = open_storage(partial)
    assert storage is not None
    optuna.copy_study(
        from_study_name=study.study_name, from_storage=study._storage, to_storage=storage, to_study_name=FOLDERS_STUDY
    )
    partial.replace(path)


def search_candidates(
    job: Job,
    recipe: Recipe,
    layout: Layout,
    *,
    folder: Path | None,
    timeout: float | None,
    on_trial: Callable[[optuna.Study], None],
) -> optuna.Study:
    """The search with its recipe: of this process alone in ``folder``, or one of several at the config's storage."""
    config, limits = job.config, job.search_limits()
    training = short_training(job, recipe)
    shared = config.storage is not None
    device = shared_device(job.device) if shared else job.device
    storage = open_storage(config.storage) if folder is None or shared else folder / "study.db"
    try:
        return search(
            job.space,
            training,
            cost=CandidateCost(device, limits, measured=not (shared or job.predicts)),
            budget=limits,
            n_trials=config.trials,
            timeout=timeout,
            seed=config.seed,
            sampler=sampler_named(config.sampler),
            storage=storage,
            study_name=config.study if shared else FOLDERS_STUDY,
            executor=_executor(config, training, layout),
            warm_start=job.warm_start,
            on_trial=on_trial,
            alone=not shared,
        )
    except UserFunctionError as error:  # if no candidate could be trained, the advice is given at the end
        if error.study is None:
            raise
        return error.study


def short_training(job: Job, recipe: Recipe) -> ShortTraining:
    """What scores the candidates of a run."""
    # A task of Ray may use a GPU only where it asked for one.
    place = training_place().type if job.config.executor != "ray" else "cuda" if job.config.gpus else "cpu"
    return ShortTraining(job.data_without_test(), recipe, job.config.seed, place)


def _executor(config: Config, training: ShortTraining | RepeatedTraining, layout: Layout) -> Executor:
    if config.executor == "ray":
        return RayTasks(training, layout.workers, address=config.address, cpus=config.cpus, gpus=config.gpus)
    return WorkerProcesses(training, layout.workers, threads=layout.threads)


def _recipe(job: Job) -> Recipe:
    recipe = Recipe(learning_rate=job.config.learning_rate, bfloat16=None if job.config.seconds else False)
    if job.config.seconds is None or job.init is not None:
        return recipe
    return from_random_weights(recipe, len(job.data.train))


def _seconds_of_each(seconds: float) -> float:
    shortest, longest = _CANDIDATE_SECONDS
    return min(max(seconds / _CANDIDATES, shortest), longest)


def layout_of(job: Job, folder: Path, seconds: float | None) -> Layout:
    """How many candidates are trained at a time, decided once and stored.

    Without a limit of time it is one, because the order in which several end depends on the clock. Where every
    candidate is measured it is one too, because trainings beside a measurement would make it slower.
    """
    kept = folder / "workers.json"
    if kept.is_file():
        return Layout.from_json(read_json(kept))
    workers = job.config.workers
    if workers is not None:
        layout = Layout(workers=workers, threads=max(1, available_cores() // workers), rates={})
    elif job.config.executor == "ray":
        layout = Layout(workers=available_cores(), threads=1, rates={})
    elif seconds is None or seconds < _WORTH_MEASURING or not job.predicts:
        layout = Layout(workers=1, threads=torch.get_num_threads(), rates={})
    else:
        with progress("workers"):
            layout = measured_layout(_few_steps(job), job.space.sample(job.config.seed))
    write_json(kept, layout.to_json())
    return layout


def _few_steps(job: Job) -> ShortTraining:
    """A training of a few steps on few images, the same for any number of workers."""
    data = job.data_without_test()
    few = replace(data, train=data.train.take(np.arange(min(len(data.train), _IMAGES_MEASURED))))
    few = replace(few, val=data.val.take(np.arange(min(len(data.val), _IMAGES_MEASURED))))
    recipe = replace(_recipe(job), epochs=1, bfloat16=False)
    return replace(short_training(job, recipe), data=few)


def best_accuracy(study: optuna.Study) -> float | None:
    """Of the most accurate candidate on validation images; None where none was trained to its end."""
    ranked = ranked_trials(study)
    return ranked[0].values[0] if ranked else None


def chosen_network(job: Job, study: optuna.Study, path: Path) -> Arch:
    """The winner of the search, measured once more when it is chosen; what was chosen stays chosen."""
    if not path.is_file():
        cost = CandidateCost(job.device, job.budget.limits(), job.measured)
        tried_first = len(job.warm_start)
        chosen = choose_winner(study, cost, job.budget, job.search_limits(), tried_first=tried_first)
        write_text(path, chosen.to_json())
    arch = Arch.from_json(path.read_text(encoding="utf-8", errors="replace"))
    return arch if arch in job.known_networks() else replace(arch, weights=job.init)
