"""Runs stages in order; each is accepted only if the deployed file is no worse for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from compress.atomic_files import write_json
from compress.networks.artifact import Artifact
from compress.networks.network_source import require_savable
from compress.networks.onnx_export import onnx_bytes
from compress.progress import Report, progress
from compress.stage_interface import Context, Stage
from compress.stages.acceptance import points_lost, rejection_reason
from compress.stages.deployed_file import deploy
from compress.stages.provenance import ORIGIN, check_origin, config_of, matches, origin_of
from hw_profiles.errors import InputError

ProgressFactory = Callable[[str], AbstractContextManager[Report]]


def run_stages(
    artifact: Artifact,
    stages: Sequence[Stage],
    context: Context,
    folder: Path,
    *,
    home: Path | None = None,
    show: ProgressFactory = progress,
) -> Artifact:
    """Run the stages one after the other, each in ``folder/NN_name``; what is finished there is not run again.

    ``home`` is the folder with the artifact's own file; without one it is written to ``folder/00_start`` first.

    After each stage the file is written, run in ONNX Runtime on the validation images and its latency taken. A stage
    whose file is slower or larger than the one before, unless the budget needs it, or that takes the accuracy more
    than ``max_accuracy_drop`` points below the reference, is reverted: its folder stays, the reason is in the
    history, and the next stage starts from what was there before. The reference is the last artifact before any lossy
    stage. A stage gets the number of points that are left to lose.

    Raises:
        InputError: a stage, which is named, cannot be applied to this artifact, the artifact cannot be saved, or the
            folder holds what came of another one, of other options, images, seed, device or budget. What earlier
            stages made stays in their folders and is found again.
    """
    require_savable(artifact.source)
    _check_size(artifact, context)
    if home is None:
        home = folder / "00_start"
        artifact = _started(artifact, home) if (home / "artifact.json").is_file() else deploy(artifact, context, home)
    reference = in_float = artifact
    for number, stage in enumerate(stages, 1):
        place = folder / f"{number:02}_{stage.name}"
        left = context.max_accuracy_drop - points_lost(reference.metrics, in_float.metrics)
        told = replace(context, max_accuracy_drop=max(0.0, left))
        after = _run_stage(artifact, stage, told, (home, place), show)
        why = rejection_reason(artifact.metrics, after.metrics, reference.metrics, context)
        if stage.lossy and _file(home, artifact) == _file(place, after):
            why = "it changed neither the architecture nor the precision"
        record = {
            "stage": stage.name,
            "config": config_of(stage, place),
            "folder": place.name,
            "before": dict(artifact.metrics),
            "after": dict(after.metrics),
            "accepted": why is None,
            "rejection_reason": why,
        }
        accepted, home = (after, place) if why is None else (artifact, home)
        artifact = replace(accepted, history=(*artifact.history, record))
        if artifact.precision == "fp32":  # what quantization is compared with
            in_float = artifact
        if not stage.lossy:
            reference = artifact
    return artifact


def _file(folder: Path, artifact: Artifact) -> bytes:
    return (folder / artifact.files["onnx"]).read_bytes()


def _check_size(artifact: Artifact, context: Context) -> None:
    wanted, given = artifact.source.input_shape, context.data.preprocessing.input_shape
    if wanted != given:
        raise InputError(f"the data must have the size that the network reads, {wanted}, got {given}: resize them")


def _started(artifact: Artifact, home: Path) -> Artifact:
    """What is there already, if it is the same network."""
    found = Artifact.load(home)
    if onnx_bytes(artifact) != _file(home, found):
        raise InputError(f"{home.parent}: holds the stages of another network; choose another folder")
    return found


def _run_stage(
    artifact: Artifact, stage: Stage, context: Context, folders: tuple[Path, Path], show: ProgressFactory
) -> Artifact:
    """``folders``: where the artifact's file is, and where the stage's file goes."""
    before, folder = folders
    origin = origin_of(stage, context, _file(before, artifact))
    if (folder / "artifact.json").is_file():
        check_origin(origin, folder)
        return Artifact.load(folder)
    partial = folder.with_name(folder.name + ".partial")
    if partial.is_dir() and not matches(origin, partial):
        shutil.rmtree(partial)  # what other options had begun
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / ORIGIN, origin)
    with show(stage.name) as report:
        bare = replace(artifact, metrics={}, files={}, history=())
        inside = replace(context, checkpoint=partial / "checkpoint.pt", folder=partial, report=report)
        try:
            after = stage(bare, inside)
        except InputError as error:
            raise InputError(f"stage {stage.name} cannot be applied: {error}") from error
    return deploy(after, context, folder, before)
