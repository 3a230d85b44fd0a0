"""A whole compression: a network, images and a tolerance in, one verified smaller file and a report out."""

from __future__ import annotations

import time as clock_time
from pathlib import Path

from torch import nn

from compress.atomic_files import json_text, write_text
from compress.networks.artifact import Artifact
from compress.networks.onnx_export import onnx_bytes
from compress.progress import progress, whole_work
from compress.stages.attempts import Home
from compress.stages.deployed_file import deploy
from compress.training.recipe import Recipe
from nas.compression.findings import Findings, collect_compression
from nas.compression.given_model import given_model
from nas.compression.job import CompressJob, prepare_job
from nas.compression.plan_runs import Place, run_plans
from nas.compression.settings import CompressSettings, load_settings, settings_of
from nas.errors import InputError, NothingFitsError, user_input
from nas.execution.kept_processes import kept_processes
from nas.execution.long_trainings import trained_artifact
from nas.pipeline.run_folder import check_config, check_data, log, open_folder
from nas.pipeline.time_budget import Clock
from nas.report.compression_page import render_compression
from nas.results.collect import Result
from search_spaces.arch import Arch


def compress(
    model: nn.Module | Arch | Artifact | str | Path,
    *,
    data: str | None = None,
    device: str = "host",
    max_accuracy_drop: float = 1.0,
    confidence: float = 0.9,
    target_size: str | None = None,
    latency: str | None = None,
    ram: str | None = None,
    flash: str | None = None,
    energy: str | None = None,
    time: str | None = None,
    plan: str | Path | None = None,
    trials: int | None = None,
    teacher: str | None = None,
    train_epochs: float | None = None,
    stage_epochs: float | None = None,
    learning_rate: float | None = None,
    latency_from: str | None = None,
    size: int | None = None,
    unreadable: str | None = None,
    seed: int | None = None,
    out: str | Path = "runs/compress",
) -> Result:
    """Make a trained network smaller without losing more than ``max_accuracy_drop`` points of accuracy.

    ``model`` is a run folder, an arch.json, an ONNX file, a preset, ``timm:NAME`` or ``module:name``, or a module, Arch
    or Artifact itself. One without weights is trained for ``train_epochs`` first, or refused. An ONNX file, and a
    module that is not timm's, is not trained: it is quantized and coded, and gets zeros or shared values for a small
    size.

    The promise is judged on validation images: the upper end of the interval with the one-sided ``confidence`` must be
    within the tolerance; where the images are too few for that, the estimate, and a warning says so. A stage that
    breaks it is replaced by the cheapest of the remedies that holds
    (:class:`compress.stages.tolerance_ladder.Int8Ladder`), or left out. One whose file is neither faster nor smaller on
    ``device`` is left out. ``target_size`` is what the coded file (``model.fnz``) may have. ``plan`` is a TOML file of
    stages (:class:`compress.stages.plan_file.Plan`); the plan that was applied is written to ``plan.toml``.

    ``trials`` plans are tried with a short recovery by Optuna, which chooses the stages and their strength; the best
    are recovered fully. With ``time`` there are as many as half of it allows; without both, one plan of a usual
    strength is run, or those from the one that ``target_size`` needs.

    ``stage_epochs`` is how long a stage trains; with ``time`` each training gets a part of it. Everything is kept in
    the folder ``out``; the same call again resumes.

    Raises:
        InputError: wrong input, described in one line.
        NothingFitsError: the size or a limit cannot be reached within the tolerance; the text names the nearest file on
            both sides, and metrics.json and the report are written.

    >>> import nas, tempfile
    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = Path(folder) / "model.onnx"
    ...     _ = model.write_bytes(write_onnx(preset("resnet8", input_shape=(1, 8, 8)).workload()))
    ...     found = nas.compress(model, data="digits", size=8, max_accuracy_drop=100, latency_from="estimated",
    ...                          out=Path(folder) / "run")
    >>> found.metrics["coded_bytes"] < found.metrics["reference"]["coded_bytes"] / 4
    True
    """
    began = clock_time.monotonic()
    with user_input():
        given = given_model(model)
        settings = settings_of(
            model=given.label, data=data, device=device, max_accuracy_drop=max_accuracy_drop, confidence=confidence,
            target_size=target_size, latency=latency, ram=ram, flash=flash, energy=energy, time=time,
            plan=None if plan is None else str(plan), trials=trials, teacher=teacher, train_epochs=train_epochs,
            stage_epochs=stage_epochs, learning_rate=learning_rate, latency_from=latency_from, size=size,
            unreadable=unreadable, seed=seed, out=str(out),
        )  # fmt: skip
        job = prepare_job(check_config(settings, load_settings), given)
    with open_folder(settings, load_settings) as folder, kept_processes():
        check_data(folder, job.data)
        clock = Clock(folder / "clock.json", settings.seconds, {}, started=began)
        with whole_work(clock.left):
            result = _all_phases(job, settings, folder, clock)
    if not result.budget_met:
        raise NothingFitsError(f"{result.metrics['verdict']} (see {result.folder / 'report.html'})")
    return result


def _all_phases(job: CompressJob, settings: CompressSettings, folder: Path, clock: Clock) -> Result:
    for note in job.notes:
        log.info("%s", note)
    reference = _reference(job, settings, folder)
    with user_input():  # a stage that was asked for may not fit the network
        nearest = run_plans(job, Place(reference=reference, folder=folder, clock=clock))
    findings = Findings(job=job, folder=folder, reference=reference, nearest=nearest, seconds=clock.spent)
    result = collect_compression(findings)
    write_text(folder / "metrics.json", json_text(result.metrics) + "\n")
    write_text(folder / "report.html", render_compression(result.metrics))
    clock.save()
    log.info("done: %s", result.metrics["verdict"])
    return result


def _reference(job: CompressJob, settings: CompressSettings, folder: Path) -> Home:
    """The network as it was given, or trained first; its file is written and run once."""
    place, context = folder / "reference", job.context()
    if settings.train_epochs is not None:
        recipe = Recipe(epochs=settings.train_epochs, learning_rate=settings.learning_rate)
        with progress("training") as report:
            trained = trained_artifact(
                job.artifact, context, recipe, place, what="the training of the network", report=report
            )
        return Home(artifact=trained, folder=place)
    if (place / "artifact.json").is_file():
        found = Home(artifact=Artifact.load(place), folder=place)
        if onnx_bytes(job.artifact) != found.file.read_bytes():
            raise InputError(f"{folder}: holds the compression of another network; choose another --out")
        return found
    return Home(artifact=deploy(job.artifact, context, place), folder=place)
