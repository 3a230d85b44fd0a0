"""The long trainings of a run, each in a separate process; after a crash they are retried with other kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from compress.data.dataset import Dataset
from compress.distillation.guided_training import GuidedTraining
from compress.networks.artifact import Artifact
from compress.progress import Report, no_report, progress
from compress.stage_interface import Context, Stage
from compress.stages.attempts import ProgressFactory
from compress.stages.deployed_file import deploy
from compress.stages.runner import run_stages
from compress.stages.tolerance_ladder import Ladder
from compress.training.data_parallel import learn_on
from compress.training.evaluation import training_places
from compress.training.loop import Recipe
from compress.training.teachers import RememberingTeacher, Teacher, trained_teacher
from nas.execution.shielded import run_shielded
from search_spaces.arch import Arch
from search_spaces.model import build_model

_VIEWS = 10  # of each image that a teacher is asked about, where the recipe does not say it


def trained_network(
    arch: Arch, context: Context, recipe: Recipe, folder: Path, *, what: str, report: Report = no_report
) -> Artifact:
    """The Arch trained from the start, on a GPU where there is one, its file written and run; found again where that is
    done.

    Where the context has a teacher, it leads from the first step. ``context.data`` has the size that the Arch reads.
    ``what`` names the training in an error.

    Raises:
        CrashError: both tries were ended by a signal; the training resumes from its last checkpoint when called again.
    """
    fresh = Artifact(source=arch, weights={}, preprocessing=context.data.preprocessing)
    artifact = fresh.with_model(build_model(arch, seed=context.seed))
    return trained_artifact(artifact, context, recipe, folder, what=what, report=report)


def trained_artifact(
    artifact: Artifact, context: Context, recipe: Recipe, folder: Path, *, what: str, report: Report = no_report
) -> Artifact:
    """As :func:`trained_network`, of any network that can be trained, from the weights that it has."""
    if (folder / "artifact.json").is_file():
        return Artifact.load(folder)
    return cast(
        "Artifact",
        run_shielded(
            _train,
            *(artifact, context, recipe, folder),
            what=what,
            report=report,
            after_crash=(artifact, context, recipe.alternative, folder),
            note=_note(folder),
        ),
    )


def _train(artifact: Artifact, context: Context, recipe: Recipe, folder: Path, report: Report) -> Artifact:
    model = artifact.model()
    learn = GuidedTraining(
        data=context.data,
        recipe=recipe if context.teacher is None else replace(recipe, views=recipe.views or _VIEWS),
        teacher=context.teacher and RememberingTeacher(context.teacher),
        seed=context.seed,
        checkpoint=folder.with_name(folder.name + ".partial") / "checkpoint.pt",
        report=report,
    )
    _learn_on_all(learn, model)
    return deploy(replace(artifact.with_model(model.cpu()), metrics=learn.metrics()), context, folder)


def _learn_on_all(learn: GuidedTraining, model: nn.Module) -> None:
    learn_on(training_places(), model, learn, replace(learn, report=no_report))


def shielded_stages(
    artifact: Artifact,
    stages: Sequence[Stage],
    context: Context,
    folder: Path,
    *,
    home: Path,
    what: str,
    ladder: Ladder | None = None,
    skip_inapplicable: bool = False,
    show: ProgressFactory = progress,
) -> Artifact:
    """As :func:`compress.stages.runner.run_stages`, all stages in one process of their own.

    Raises:
        CrashError: both tries were ended by a signal; finished stages are saved and not repeated when called again.
        InputError: as ``run_stages``.
    """
    others = [_by_other_kernels(stage) for stage in stages]
    return cast(
        "Artifact",
        run_shielded(
            run_stages,
            *(artifact, stages, context, folder),
            keywords={"home": home, "ladder": ladder, "skip_inapplicable": skip_inapplicable},
            what=what,
            show=show,
            after_crash=(artifact, others, context, folder),
            note=_note(folder),
        ),
    )


def _by_other_kernels(stage: Stage) -> Stage:
    recipe = getattr(stage, "recipe", None)
    return replace(cast("Any", stage), recipe=recipe.alternative) if isinstance(recipe, Recipe) else stage


def shielded_teacher(
    network: str | Arch, data: Dataset, recipe: Recipe, folder: Path, *, seed: int = 0, report: Report = no_report
) -> Teacher:
    """As :func:`compress.training.teachers.trained_teacher`.

    Raises:
        CrashError: both tries were ended by a signal.
        InputError: as ``trained_teacher``.
    """
    return cast(
        "Teacher",
        run_shielded(
            trained_teacher,
            *(network, data, recipe, folder),
            keywords={"seed": seed},
            what="the training of the teacher",
            report=report,
            after_crash=(network, data, recipe.alternative, folder),
            note=_note(folder),
        ),
    )


def _note(folder: Path) -> Path:
    """Beside the folder, which may be begun anew."""
    return folder.with_name(f"{folder.name}-crash.json")
