"""A whole run: images and a budget in, one verified file and a report out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.atomic_files import json_text, write_text
from compress.networks.artifact import Artifact
from compress.progress import Listener, progress, progress_to, whole_work
from compress.pruning.prune import Prune
from compress.quantization.int8.qat import QuantizeAware
from compress.stage_interface import Context, Stage
from compress.training.loop import Recipe
from hw_profiles.devices.c99_program import deploys_c99
from nas.config import load_config
from nas.errors import NothingFitsError, user_input
from nas.execution.kept_processes import kept_processes
from nas.execution.long_trainings import shielded_stages, trained_network
from nas.pipeline.job import Job, prepare
from nas.pipeline.planning import pays, plan_facts, planned, winner_pace, winner_recipe
from nas.pipeline.run_folder import check_config, check_data, check_files, check_init, log, open_folder
from nas.pipeline.search_phase import best_accuracy, check_feasible, chosen_network, searched_study
from nas.pipeline.stage_plan import AUTO, baseline_of, int8_ladder, planned_stages, recipe_for, stage_names
from nas.pipeline.teacher import prepare_teacher
from nas.pipeline.time_budget import Clock
from nas.report.page import render
from nas.results.collect import SELECTED, Findings, Result, collect
from nas.results.teacher_info import TeacherInfo
from nas.results.trials_csv import trials_csv
from search_spaces.arch import Arch
from search_spaces.presets import preset


def run(config: str | Path | None = None, *, on_progress: Listener | None = None, **overrides: Any) -> Result:
    """Search for, train, compress and verify a network for ``data`` within a budget on ``device``.

    The same call resumes an interrupted run.

    Args:
        config: TOML file of settings.
        on_progress: ``on_progress(phase, share, note)`` is called during each phase with the finished share between 0
            and 1, instead of showing progress bars.
        **overrides: settings of :class:`nas.Config`, such as ``data="photos"``, ``latency="2ms"``, ``time="1h"`` and
            ``out="runs/photos"``; they override those of the file.

    Returns:
        The result: ``folder`` with all files, ``deployed`` (the path of the final model), ``budget_met``, and
        ``metrics``, the content of metrics.json (see :func:`nas.records`).

    Raises:
        InputError: wrong input, described in one line.
        NothingFitsError: no network was found that meets the budget.
    """
    with progress_to(on_progress):
        return _run(config, overrides)


def _run(config: str | Path | None, overrides: Mapping[str, Any]) -> Result:
    began = time.monotonic()  # reading the images counts
    with user_input():
        job = prepare(check_config(load_config(config, overrides)))
    with open_folder(job.config) as folder, kept_processes():
        check_data(folder, job.data)
        check_files(folder, job.config)
        check_init(folder, job.init_facts)
        clock = Clock(folder / "plan.json", job.config.seconds, {}, started=began)
        with whole_work(clock.left):
            result = _all_phases(job, folder, clock)
    if not result.budget_met:
        raise NothingFitsError(f"{result.metrics['verdict']} (see {result.folder / 'report.html'})")
    return result


def _all_phases(job: Job, folder: Path, clock: Clock) -> Result:
    check_feasible(job, folder)
    with user_input():
        plan, searching = planned(job, folder, clock)
    study = searched_study(searching, folder, clock, plan)
    arch = chosen_network(searching, study, folder / "winner.json")
    teacher_info = prepare_teacher(
        job.config, job.auto_teacher(), job.data, folder, clock, to_beat=best_accuracy(study)
    )
    if teacher_info.teacher is None:
        clock.weights = {name: weight for name, weight in clock.weights.items() if name != "teacher"}
    shipped = job.for_shipping() if plan is not None else job
    pace = None if plan is None else winner_pace(arch, plan, job, clock, teacher_info.teacher)
    recipe, facts = _recipe(job, "train", clock), None
    if plan is not None and pace is not None:
        recipe = winner_recipe(recipe, arch, plan, pace)
        facts = plan_facts(plan, recipe, pace)
    # With a limit of time a teacher leads from the first step; without it the stage distill follows.
    leading = teacher_info if plan is not None else TeacherInfo()
    winner = _trained(shipped, SELECTED, arch, folder / "winner", recipe, teacher_info=leading)
    stages = _stages(job, teacher_info, clock)
    if plan is not None and job.config.stages == AUTO:
        stages = [stage for stage in stages if pays(stage, job, winner)]
    context = shipped.context(winner, teacher_info)
    with user_input():  # a stage that was requested may not fit the network that was found
        artifact = _compressed(job, winner, stages, context, clock)
    baseline = _baseline(
        shipped, teacher_info, folder / "baseline", clock, winners_shape=arch.input_shape, winners_recipe=recipe
    )
    findings = Findings(
        config=job.config,
        asked=job.asked,
        folder=folder,
        data=job.data,
        teacher_info=teacher_info,
        study=study,
        artifact=artifact,
        baseline=baseline,
        context=shipped.context(artifact, teacher_info),
        seconds=clock.spent,
        plan=facts,
    )
    return _written(findings, clock)


def _written(findings: Findings, clock: Clock) -> Result:
    """The results, and the files that show them."""
    result, folder = collect(findings), findings.folder
    write_text(folder / "trials.csv", trials_csv(findings.study))
    write_text(folder / "metrics.json", json_text(result.metrics) + "\n")
    write_text(folder / "report.html", render(result.metrics, findings.study))
    clock.save()
    log.info("done: %s", result.metrics["verdict"])
    return result


def _recipe(job: Job, phase: str, clock: Clock) -> Recipe:
    return recipe_for(phase, job.config, clock.seconds_for(phase))


def _trained(job: Job, label: str, arch: Arch, folder: Path, recipe: Recipe, *, teacher_info: TeacherInfo) -> Artifact:
    """The Arch trained from the start, its file written and run; found again where that is done."""
    bare = Artifact(source=arch, weights={}, preprocessing=job.data.preprocessing)
    with progress(label) as report:
        context = job.context(bare, teacher_info)
        return trained_network(arch, context, recipe, folder, what=f"the training ({label})", report=report)


def _stages(job: Job, teacher_info: TeacherInfo, clock: Clock) -> list[Stage]:
    def recipe(phase: str) -> Recipe:
        return _recipe(job, phase, clock)

    return planned_stages(job.config, recipe, has_teacher=teacher_info.teacher is not None)


def _compressed(job: Job, winner: Artifact, stages: Sequence[Stage], context: Context, clock: Clock) -> Artifact:
    """The winner after its stages. If int8 loses too much accuracy, the least expensive remedy is searched; for a
    microcontroller, which needs all of it in int8, quantization-aware training is used instead.

    Raises:
        NothingFitsError: that loses too much, too.
    """

    folder, ladder = clock.path.parent, None if deploys_c99(job.device) else int8_ladder(job.config)

    def after(stages: Sequence[Stage]) -> Artifact:
        home, what = folder / "winner", "a stage of the winner"
        return shielded_stages(winner, stages, context, folder / "stages", home=home, what=what, ladder=ladder)

    artifact = after(stages)
    if not deploys_c99(job.device) or artifact.precision == "int8":
        return artifact
    log.info("int8 loses too much accuracy; running quantization-aware training")
    left = clock.left
    recipe = recipe_for(QuantizeAware.name, job.config, None if left is None else max(left / 2, 1.0))
    artifact = after([*stages, QuantizeAware(recipe=recipe)])
    if artifact.precision != "int8":
        why = artifact.history[-1]["rejection_reason"]
        raise NothingFitsError(
            f"{job.device.name} supports int8 only, and quantization-aware training did not meet the accuracy limit: "
            f"{why}; increase --max-accuracy-drop or --time"
        )
    return artifact


def _baseline(
    job: Job,
    teacher_info: TeacherInfo,
    folder: Path,
    clock: Clock,
    *,
    winners_shape: tuple[int, int, int],
    winners_recipe: Recipe,
) -> tuple[str, Artifact] | None:
    """The preset under the winner's recipe, for as long as all trainings of the winner took, taken through the same
    stages but pruning. With a limit of time it has the winner's resolution."""
    name = baseline_of(job.config)
    if name is None:
        return None
    clock.seconds_for("baseline")
    shape = job.data.preprocessing.input_shape if job.config.seconds is None else winners_shape
    arch = preset(name, input_shape=shape, num_classes=job.data.num_classes)
    pruned = [name for name in stage_names(job.config) if name == Prune.name]
    recipes = [winners_recipe, *(_recipe(job, phase, clock) for phase in pruned)]
    recipe = replace(
        winners_recipe,
        epochs=sum(r.epochs for r in recipes),
        seconds=sum(r.seconds for r in recipes if r.seconds is not None) or None,
    )
    leading = TeacherInfo() if job.config.seconds is None else teacher_info
    trained = _trained(job, name, arch, folder / "trained", recipe, teacher_info=leading)
    stages = [stage for stage in _stages(job, teacher_info, clock) if not isinstance(stage, Prune)]
    context = job.context(trained, teacher_info)
    return name, shielded_stages(
        trained,
        stages,
        context,
        folder / "stages",
        home=folder / "trained",
        what=f"a stage of {name}",
        ladder=int8_ladder(job.config),
        show=lambda label: progress(f"{name}, {label}"),
    )
