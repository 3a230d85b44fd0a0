"""A whole compression: a network, images and a tolerance in, one verified smaller file and a report out."""

from __future__ import annotations

import time as clock_time
from dataclasses import replace
from pathlib import Path

from torch import nn

from compress.atomic_files import json_text, write_text
from compress.networks.artifact import Artifact
from compress.networks.onnx_export import onnx_bytes
from compress.progress import progress, whole_work
from compress.stages.attempts import Home
from compress.stages.deployed_file import deploy
from compress.stages.plan_file import Plan, read_plan
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

_GIVEN_PLAN = "given_plan.toml"


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
    """Make a trained model smaller while keeping the accuracy drop within ``max_accuracy_drop`` points.

    The accuracy drop is tested on validation images: the upper bound of its interval with the one-sided ``confidence``
    must not exceed the limit. With too few images for that, a lower confidence level is used and a warning is issued. A
    step that loses too much is replaced by the least expensive remedy that meets the limit
    (:class:`compress.stages.tolerance_ladder.Int8Ladder`), or skipped. Steps that make the file neither faster nor
    smaller on ``device`` are skipped. The same call resumes an interrupted compression.

    Args:
        model: a run folder, an arch.json, an ONNX file, a preset, ``timm:NAME`` or ``module:name``, or a torch module,
            Arch or Artifact. ONNX files, and modules other than timm models, are not trained: they are quantized and
            coded, and for a small ``target_size`` also pruned (unstructured) and given fewer int8 levels.
        data: dataset, as for :func:`nas.run`; by default that of the run, otherwise ``"digits"``.
        device: name or file of the target device.
        max_accuracy_drop: maximum total accuracy drop in percentage points.
        confidence: one-sided confidence level of the accuracy test.
        target_size: maximum size of the compressed file (``model.fnz``), e.g. ``"100kB"``.
        latency: limit, e.g. ``"5ms"``.
        ram: limit on the activation memory, e.g. ``"256kB"``.
        flash: limit on the weight size, e.g. ``"1MB"``.
        energy: limit on the energy per inference, e.g. ``"2mJ"``.
        time: time limit of the whole compression, e.g. ``"30min"``.
        plan: TOML file of steps (:class:`compress.stages.plan_file.Plan`); the plan that was applied is written to
            ``plan.toml``.
        trials: number of plans that Optuna tries with a short fine-tuning, choosing the steps and their strength; the
            best ones are fully fine-tuned and judged on other validation images if there are enough. By default as many
            as half of ``time`` allows. Without both, a plan of default strength is run, or with ``target_size`` plans
            of increasing strength until the size is reached.
        teacher: ONNX teacher model.
        train_epochs: train the model for so many epochs first; required for a model without weights.
        stage_epochs: fine-tuning epochs per step; with ``time`` each training gets a share of it.
        learning_rate: learning rate of ``train_epochs``; steps use fractions of it.
        latency_from: ``"measured"``, ``"estimated"`` or ``"auto"``.
        size: image size in pixels.
        unreadable: ``"refuse"`` or ``"skip"`` unreadable images.
        seed: random seed.
        out: folder of all results.

    Returns:
        The result, as for :func:`nas.run`.

    Raises:
        InputError: wrong input, described in one line.
        NothingFitsError: the target size or a limit cannot be reached within the accuracy limit; the message reports
            the closest results (within the accuracy limit, and with all limits met), and metrics.json and the report
            are written.

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
        ).with_images_of(given.run)  # fmt: skip
        job = prepare_job(check_config(settings, load_settings), given)
    with open_folder(settings, load_settings) as folder, kept_processes():
        check_data(folder, job.data)
        _check_plan(folder, job.plan)
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
    with user_input():  # a stage that was requested may not fit the network
        nearest = run_plans(job, Place(reference=reference, folder=folder, clock=clock))
    findings = Findings(job=job, folder=folder, reference=reference, nearest=nearest, seconds=clock.spent)
    result = collect_compression(findings)
    write_text(folder / "metrics.json", json_text(result.metrics) + "\n")
    write_text(folder / "report.html", render_compression(result.metrics))
    clock.save()
    log.info("done: %s", result.metrics["verdict"])
    return result


def _check_plan(folder: Path, plan: Plan | None) -> None:
    """Keep the plan that was given, and refuse to resume with another one in the same file: how long stages train is
    not looked at where their results are found again."""
    if plan is None:
        return
    path = folder / _GIVEN_PLAN
    if not path.is_file():
        write_text(path, plan.to_toml())
    if read_plan(path) != plan:
        raise InputError(f"{folder} contains the results of a different plan, kept in {path}; choose another --out")


def _reference(job: CompressJob, settings: CompressSettings, folder: Path) -> Home:
    """The network as it was given, or trained first; its file is written and run once."""
    place, context = folder / "reference", job.context()
    if settings.train_epochs is not None:
        recipe = Recipe(epochs=settings.train_epochs, learning_rate=settings.learning_rate)
        with progress("training") as report:
            alone = replace(context, teacher=None)  # a teacher is for the stages
            trained = trained_artifact(
                job.artifact, alone, recipe, place, what="the training of the network", report=report
            )
        return Home(artifact=trained, folder=place)
    if (place / "artifact.json").is_file():
        found = Home(artifact=Artifact.load(place), folder=place)
        if onnx_bytes(job.artifact) != found.file.read_bytes():
            raise InputError(f"{folder} contains the results of a different model; choose another --out")
        return found
    return Home(artifact=deploy(job.artifact, context, place), folder=place)
