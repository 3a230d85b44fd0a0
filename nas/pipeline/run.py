"""A whole run: images and a budget in, one verified file and a report out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.atomic_files import json_text, write_text
from compress.networks.artifact import Artifact
from compress.progress import progress
from compress.pruning.prune import Prune
from compress.stage_interface import Stage
from compress.training.loop import Recipe
from nas.config import Config, load_config
from nas.errors import NothingFitsError, user_input
from nas.execution.kept_processes import kept_processes
from nas.execution.long_trainings import shielded_stages, trained_network
from nas.pipeline.job import Job, prepare
from nas.pipeline.run_folder import check_config, check_data, check_init, log, open_folder
from nas.pipeline.search_phase import chosen_network, search_networks
from nas.pipeline.stage_plan import planned_stages, recipe_for, stage_names, with_stage_weights
from nas.pipeline.teacher import NO_TEACHER, prepare_teacher
from nas.pipeline.time_budget import Clock
from nas.report.page import render
from nas.results.collect import Findings, Result, collect
from nas.results.tables import trials_csv
from nas.results.teacher_info import TeacherInfo
from search_spaces.arch import Arch
from search_spaces.presets import preset

# Shares of the time. The baseline is trained exactly as long as the winner, so it weighs as much as all its trainings.
_WEIGHTS = {"teacher": 0.18, "search": 0.28, "train": 0.13, "distill": 0.09, "prune": 0.05, "baseline": 0.27}
_TEACHERLESS = {"search": 0.34, "train": 0.26, "prune": 0.06, "baseline": 0.32}


def run(config: str | Path | None = None, **overrides: Any) -> Result:
    """Find, train, compress and verify a network for ``data`` within a budget on ``device``.

    ``config`` is a TOML file; keyword arguments are its entries and win over it (see :class:`nas.config.Config`).
    Everything is kept in the folder ``out``; the same call again resumes an interrupted run.

    Raises:
        InputError: wrong input, described in one line.
        NothingFitsError: no network was found that keeps the budget.
    """
    with user_input():
        job = prepare(check_config(load_config(config, overrides)))
    with open_folder(job.config) as folder, kept_processes():
        check_data(folder, job.data)
        check_init(folder, job.init_facts)
        clock = Clock(
            folder / "plan.json", job.config.seconds, _weights(job.config, has_teacher=job.config.teacher != NO_TEACHER)
        )
        teacher_info = prepare_teacher(job.config, job.data, folder, clock)
        if teacher_info.teacher is None:
            clock.weights = _weights(job.config, has_teacher=False)
        study = search_networks(job, folder, clock)
        arch = chosen_network(job, study, folder / "winner.json")
        pretrained = job.init is not None
        recipe = _recipe(job, "train", clock, pretrained=pretrained)
        winner = _trained(job, "winner", arch, folder / "winner", recipe)
        stages, context = _stages(job, teacher_info, clock, pretrained=pretrained), job.context(winner, teacher_info)
        with user_input():  # a stage that was asked for may not fit the network that was found
            artifact = shielded_stages(
                winner, stages, context, folder / "stages", home=folder / "winner", what="a stage of the winner"
            )
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


def _weights(config: Config, *, has_teacher: bool) -> Mapping[str, float]:
    weights = with_stage_weights(_WEIGHTS if has_teacher else _TEACHERLESS, config)
    return {k: v for k, v in weights.items() if k != "baseline" or config.baseline != "none"}


def _recipe(job: Job, phase: str, clock: Clock, *, pretrained: bool) -> Recipe:
    return recipe_for(phase, job.config, job.rate(pretrained=pretrained), clock.seconds_for(phase))


def _trained(job: Job, label: str, arch: Arch, folder: Path, recipe: Recipe) -> Artifact:
    """The Arch trained from the start, its file written and run; found again where that is done."""
    bare = Artifact(source=arch, weights={}, preprocessing=job.data.preprocessing)
    with progress(label) as report:
        context = job.context(bare, TeacherInfo())
        return trained_network(arch, context, recipe, folder, what=f"the training of {label}", report=report)


def _stages(job: Job, teacher_info: TeacherInfo, clock: Clock, *, pretrained: bool) -> list[Stage]:
    def recipe(phase: str) -> Recipe:
        return _recipe(job, phase, clock, pretrained=pretrained)

    return planned_stages(job.config, recipe, has_teacher=teacher_info.teacher is not None)


def _baseline(job: Job, teacher_info: TeacherInfo, folder: Path, clock: Clock) -> Artifact | None:
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
    return shielded_stages(
        trained,
        stages,
        context,
        folder / "stages",
        home=folder / "trained",
        what=f"a stage of {name}",
        show=lambda label: progress(f"{name}, {label}"),
    )
