"""A whole run: images and a budget in, one verified file and a report out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from compress.atomic_files import json_text, write_text
from compress.data.dataset import Dataset, load_data
from compress.networks.artifact import Artifact
from compress.progress import progress
from compress.pruning.importance import CRITERIA
from compress.pruning.prune import Prune
from compress.stage_interface import Context, Stage
from compress.stages.deployed_file import deploy
from compress.stages.runner import run_stages
from compress.training.loop import Recipe, train
from hw_profiles.budget import Budget
from hw_profiles.devices.device import Device
from hw_profiles.devices.device_file import load_device
from hw_profiles.devices.machine import matches_this_machine
from hw_profiles.errors import InputError
from nas.config import Config, load_config
from nas.engine.candidate_evaluation import CandidateCost, ShortTraining
from nas.engine.search import search
from nas.engine.trial_attributes import STARTED
from nas.engine.winner_selection import choose_winner
from nas.errors import NothingFitsError, user_input
from nas.pipeline.pretrained_weights import initial_weights
from nas.pipeline.run_folder import check_config, check_data, log, open_folder
from nas.pipeline.stage_plan import LONGEST, planned_stages, recipe_for, stage_names, with_stage_weights
from nas.pipeline.teacher import NO_TEACHER, check_teacher, check_teacher_file, prepare_teacher
from nas.pipeline.time_budget import Clock
from nas.report.page import render
from nas.results.collect import Findings, Result, collect
from nas.results.tables import trials_csv
from nas.results.teacher_info import TeacherInfo
from nas.samplers.registry import sampler_named
from search_spaces.arch import Arch
from search_spaces.model import build_model
from search_spaces.presets import preset
from search_spaces.pretrained import pretrained_space
from search_spaces.registry import load_space
from search_spaces.space import Space

# Shares of the time. The baseline is trained exactly as long as the winner, so it weighs as much as all its trainings.
_WEIGHTS = {"teacher": 0.18, "search": 0.28, "train": 0.13, "distill": 0.09, "prune": 0.05, "baseline": 0.27}
_TEACHERLESS = {"search": 0.34, "train": 0.26, "prune": 0.06, "baseline": 0.32}
_CANDIDATES = 24  # as many short trainings as a search by time should afford
_CANDIDATE_SECONDS = (1.5, 60.0)
_FINE_TUNING = 0.2
_DRIFT = 0.97  # measurements of one file differ by some percent: the search keeps clear of the limit


def run(config: str | Path | None = None, **overrides: Any) -> Result:
    """Find, train, compress and verify a network for ``data`` within a budget on ``device``.

    ``config`` is a TOML file; keyword arguments are its entries and win over it (see :class:`nas.config.Config`).
    Everything is kept in the folder ``out``; the same call again resumes an interrupted run.

    Raises:
        InputError: wrong input, described in one line.
        NothingFitsError: no network was found that keeps the budget.
    """
    with user_input():
        job = _prepare(load_config(config, overrides))
    with open_folder(job.config) as folder:
        check_data(folder, job.data)
        clock = Clock(
            folder / "plan.json", job.config.seconds, _weights(job.config, has_teacher=job.config.teacher != NO_TEACHER)
        )
        teacher_info = prepare_teacher(job.config, job.data, folder, clock)
        if teacher_info.teacher is None:
            clock.weights = _weights(job.config, has_teacher=False)
        study = _search(job, folder, clock)
        arch = _chosen(job, study, folder / "winner.json")
        pretrained = job.init is not None
        recipe = _recipe(job, "train", clock, pretrained=pretrained)
        winner = _trained(job, "winner", arch, folder / "winner", recipe)
        stages, context = _stages(job, teacher_info, clock, pretrained=pretrained), job.context(winner, teacher_info)
        with user_input():  # a stage that was asked for may not fit the network that was found
            artifact = run_stages(winner, stages, context, folder / "stages", home=folder / "winner")
        baseline = _baseline(job, teacher_info, folder / "baseline", clock)
        result = collect(
            Findings(
                config=job.config,
                folder=folder,
                data=job.data,
                teacher_info=teacher_info,
                study=study,
                artifact=artifact,
                baseline=baseline,
                context=job.context(artifact, teacher_info),
                seconds=clock.spent,
            )
        )
        write_text(folder / "trials.csv", trials_csv(study))
        write_text(folder / "metrics.json", json_text(result.metrics) + "\n")
        write_text(folder / "report.html", render(result.metrics, study))
        clock.save()
        log.info("done: %s", result.metrics["verdict"])
    if not result.budget_met:
        raise NothingFitsError(f"{result.metrics['verdict']} (see {result.folder / 'report.html'})")
    return result


@dataclass(frozen=True, slots=True)
class _Job:
    """The checked input of a run."""

    config: Config
    data: Dataset
    device: Device
    budget: Budget
    space: Space
    init: Path | None
    measured: bool

    @property
    def predicts(self) -> bool:
        """Whether candidates are estimated from the device's table, which was made on this machine; the finalists are
        measured."""
        made_here = matches_this_machine(self.device.conditions, self.device.threads)
        return not self.measured or (self.config.latency_from == "auto" and made_here)

    def search_limits(self) -> dict[str, float]:
        """What a candidate must keep, some percent clear of the budget where each one's latency is measured."""
        limits = self.budget.limits()
        if not self.predicts and "latency_ms" in limits:
            limits["latency_ms"] *= _DRIFT
        return limits

    def context(self, artifact: Artifact, teacher_info: TeacherInfo) -> Context:
        """What the stages of an artifact work with."""
        return Context(
            data=self.data.resized(*artifact.source.input_shape[1:]),
            device=self.device,
            budget=self.budget,
            max_accuracy_drop=self.config.max_accuracy_drop,
            teacher=teacher_info.teacher,
            seed=self.config.seed,
            measured=self.measured,
        )


def _prepare(config: Config) -> _Job:
    """Everything that can be wrong with the input is found here, before a folder is made."""
    check_config(config)
    device = load_device(config.device)
    if config.latency_from == "measured" and not device.measurable:
        raise InputError(f"latency_from 'measured' needs a device that is this machine, got {config.device!r}")
    if config.budget.energy_mj is not None:
        raise InputError(f"--energy: this device states no power: {device.name}; leave --energy out")
    check_teacher(config.teacher)
    sampler_named(config.sampler)
    stage_names(config)
    if config.prune_criterion not in CRITERIA:
        raise InputError(f"prune_criterion must be one of {', '.join(CRITERIA)}, got {config.prune_criterion!r}")
    if config.baseline != "none":
        preset(config.baseline)
    with progress("reading images") as report:
        data = load_data(
            config.data,
            seed=config.seed,
            size=config.size,
            unreadable=config.unreadable,
            on_progress=lambda share: report(share, ""),
        )
    check_teacher_file(config.teacher, data)
    init = None if config.init is None else initial_weights(config.init)
    shape, classes = data.preprocessing.input_shape, data.num_classes
    if init is None:
        space, weights = load_space(config.space, input_shape=shape, num_classes=classes), None
    else:
        space, weights = pretrained_space(*init, input_shape=shape, num_classes=classes), init[1]
    measured = device.measurable and config.latency_from != "estimated"
    return _Job(config, data, device, config.budget, space, weights, measured)


def _weights(config: Config, *, has_teacher: bool) -> Mapping[str, float]:
    weights = with_stage_weights(_WEIGHTS if has_teacher else _TEACHERLESS, config)
    return {k: v for k, v in weights.items() if k != "baseline" or config.baseline != "none"}


def _search(job: _Job, folder: Path, clock: Clock) -> optuna.Study:
    config = job.config
    seconds = clock.seconds_for("search")
    each = None if seconds is None else min(max(seconds / _CANDIDATES, _CANDIDATE_SECONDS[0]), _CANDIDATE_SECONDS[1])
    recipe = Recipe(
        epochs=config.search_epochs * (LONGEST if seconds else 1),
        seconds=each,
        learning_rate=_rate(job, pretrained=job.init is not None),
        bfloat16=None if seconds else False,
    )
    limits = job.search_limits()
    with progress("search") as report:

        def seen(study: optuna.Study) -> None:
            started = sum(STARTED in trial.user_attrs for trial in study.get_trials(deepcopy=False))
            shares = [started / config.trials] if config.trials else []
            shares += [1 - (clock.left_of("search") or 0.0) / seconds] if seconds else []
            report(max(shares), f"{started} candidates trained, {len(study.get_trials(deepcopy=False))} proposed")
            clock.save()

        return search(
            job.space,
            ShortTraining(job.data, recipe, config.seed),
            cost=CandidateCost(job.device, limits, measured=not job.predicts),
            budget=limits,
            n_trials=config.trials,
            timeout=None if seconds is None else max(clock.left_of("search") or 0.0, 1e-3),
            seed=config.seed,
            sampler=sampler_named(config.sampler),
            storage=folder / "study.db",
            study_name="search",
            on_trial=seen,
            alone=True,
        )


def _chosen(job: _Job, study: optuna.Study, path: Path) -> Arch:
    """The winner of the search, measured once more when it is chosen; what was chosen stays chosen."""
    if not path.is_file():
        cost = CandidateCost(job.device, job.budget.limits(), job.measured)
        chosen = choose_winner(study, cost, job.budget, job.search_limits())
        write_text(path, chosen.to_json())
    return replace(Arch.from_json(path.read_text(encoding="utf-8", errors="replace")), weights=job.init)


def _rate(job: _Job, *, pretrained: bool) -> float:
    """Weights that know something already are changed more slowly."""
    return job.config.learning_rate * (_FINE_TUNING if pretrained else 1.0)


def _recipe(job: _Job, phase: str, clock: Clock, *, pretrained: bool) -> Recipe:
    return recipe_for(phase, job.config, _rate(job, pretrained=pretrained), clock.seconds_for(phase))


def _trained(job: _Job, label: str, arch: Arch, folder: Path, recipe: Recipe) -> Artifact:
    """The Arch trained from the start, its file written and run; found again where that is done."""
    if (folder / "artifact.json").is_file():
        return Artifact.load(folder)
    partial = folder.with_name(folder.name + ".partial")
    data = job.data.resized(*arch.input_shape[1:])
    model = build_model(arch, seed=job.config.seed)
    with progress(label) as report:
        took = train(model, data, recipe, seed=job.config.seed, checkpoint=partial / "checkpoint.pt", report=report)
    artifact = Artifact(
        source=arch,
        weights={},
        preprocessing=data.preprocessing,
        metrics={"training": asdict(took)},
    ).with_model(model)
    return deploy(artifact, job.context(artifact, TeacherInfo()), folder)


def _stages(job: _Job, teacher_info: TeacherInfo, clock: Clock, *, pretrained: bool) -> list[Stage]:
    def recipe(phase: str) -> Recipe:
        return _recipe(job, phase, clock, pretrained=pretrained)

    return planned_stages(job.config, recipe, has_teacher=teacher_info.teacher is not None)


def _baseline(job: _Job, teacher_info: TeacherInfo, folder: Path, clock: Clock) -> Artifact | None:
    """The preset under the winner's recipe, for as long as all trainings of the winner took, taken through the same
    stages but pruning."""
    if job.config.baseline == "none":
        return None
    clock.seconds_for("baseline")
    arch = preset(job.config.baseline, input_shape=job.data.preprocessing.input_shape, num_classes=job.data.num_classes)
    phases = ["train", *(name for name in stage_names(job.config) if name == Prune.name)]
    recipes = [_recipe(job, phase, clock, pretrained=False) for phase in phases]
    recipe = replace(
        recipes[0],
        epochs=sum(r.epochs for r in recipes),
        seconds=sum(r.seconds for r in recipes if r.seconds is not None) or None,
    )
    trained = _trained(job, job.config.baseline, arch, folder / "trained", recipe)
    stages = [stage for stage in _stages(job, teacher_info, clock, pretrained=False) if not isinstance(stage, Prune)]
    context = job.context(trained, teacher_info)
    name = job.config.baseline
    return run_stages(
        trained,
        stages,
        context,
        folder / "stages",
        home=folder / "trained",
        show=lambda label: progress(f"{name}, {label}"),
    )
