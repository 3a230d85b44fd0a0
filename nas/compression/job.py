"""The checked input of a compression: a network, its images, a device, limits and the plan, if one is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from compress.data.dataset import Dataset, load_data
from compress.networks.artifact import Artifact
from compress.networks.as_artifact import fitted
from compress.progress import progress
from compress.stage_interface import Context
from compress.stages.plan_file import Plan, read_plan
from compress.training.teachers import OnnxTeacher, Teacher
from hw_profiles.budget import Budget
from hw_profiles.devices.device import Device
from hw_profiles.devices.device_file import load_device
from hw_profiles.errors import InputError
from nas.compression.given_model import Given, loaded_model
from nas.compression.judging_images import choosing_and_judging
from nas.compression.settings import NO_TEACHER, CompressSettings
from nas.pipeline.job import with_energy_as_latency
from nas.pipeline.teacher import check_teacher_file


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressJob:
    """The checked input. ``data`` have the size that the network reads; in ``search_data``, by which a search chooses
    among plans, other images validate if there are enough. ``notes`` are what cannot be done with this network."""

    settings: CompressSettings
    data: Dataset
    search_data: Dataset
    data_name: str
    device: Device
    budget: Budget
    artifact: Artifact
    plan: Plan | None
    teacher: Teacher | None
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def is_searched(self) -> bool:
        """Whether a search chooses the plan."""
        return self.plan is None and self.settings.most_plans > 0

    @property
    def measured(self) -> bool:
        """Whether files are timed on this machine."""
        return self.device.measurable and self.settings.latency_from != "estimated"

    def context(self, *, max_accuracy_drop: float | None = None) -> Context:
        """What the stages work with; the tolerance is that of the settings unless another is given."""
        allowed = self.settings.max_accuracy_drop if max_accuracy_drop is None else max_accuracy_drop
        return Context(
            data=self.data,
            device=self.device,
            budget=self.budget,
            max_accuracy_drop=allowed,
            confidence=self.settings.confidence,
            target_bytes=self.settings.target_bytes,
            smaller_suffices=True,
            teacher=self.teacher,
            seed=self.seed,
            measured=self.measured,
        )


def prepare_job(settings: CompressSettings, given: Given) -> CompressJob:
    """Read and check everything that can be wrong with the input, before a folder is made; the settings are those of
    :meth:`nas.compression.settings.CompressSettings.with_images_of`.

    Raises:
        InputError: with what must hold, and what came.
    """
    device = load_device(settings.device)
    if settings.latency_from == "measured" and not device.measurable:
        raise InputError(f"latency_from='measured' requires a device file of this machine, got {settings.device!r}")
    budget = with_energy_as_latency(settings.budget, device)
    plan = None if settings.plan is None else read_plan(settings.plan)
    source, seed, unreadable = settings.data, settings.seed, settings.unreadable
    assert source is not None
    assert seed is not None
    assert unreadable is not None
    with progress("reading images") as report:
        data = load_data(
            source, seed=seed, size=settings.size, unreadable=unreadable, on_progress=lambda share: report(share, "")
        )
    trains = settings.train_epochs is not None
    loaded = loaded_model(given, data, trains=trains)
    read = fitted(data, loaded.artifact)
    _check_classes(loaded.artifact, data, given.label)
    artifact = replace(loaded.artifact, preprocessing=read.preprocessing)
    _check_float(artifact, given.label)
    if artifact.network.file is not None:
        _check_untrained(settings, given.label)
    if plan is not None:
        _check_plan(plan, artifact, settings)
    if settings.teacher != NO_TEACHER:
        check_teacher_file(settings.teacher, read)
    choosing, judging = read.val, read.val
    if plan is None and settings.most_plans:
        choosing, judging = choosing_and_judging(
            read.val, allowed=settings.max_accuracy_drop, confidence=settings.confidence, seed=seed
        )
    return CompressJob(
        settings=settings,
        data=replace(read, val=judging),
        search_data=replace(read, val=choosing),
        data_name=source,
        device=device,
        budget=budget,
        artifact=artifact,
        plan=plan,
        teacher=None if settings.teacher == NO_TEACHER else OnnxTeacher(Path(settings.teacher), read),
        seed=seed,
        notes=loaded.notes,
    )


def _check_classes(artifact: Artifact, data: Dataset, label: str) -> None:
    """Raise an InputError where a network says that its classes are others than those of the data, or in another order.
    Names that are numbers say nothing."""
    own, theirs = artifact.preprocessing.class_names, data.preprocessing.class_names
    named = all(any(not name.isdecimal() for name in names) for names in (own, theirs))
    if named and own != theirs:
        pairs = enumerate(zip_longest(own, theirs))
        number, mine, other = next((i, one, two) for i, (one, two) in pairs if one != two)
        raise InputError(
            f"{label} must have the classes of {data.name}, but its class {number} is {mine!r:.80}, there it is "
            f"{other!r:.80}"
        )


def _check_float(artifact: Artifact, label: str) -> None:
    """Raise an InputError where a network is int8 already or stores its weights in other formats."""
    if artifact.precision != "fp32" or artifact.weight_formats or artifact.deployed is not None:
        formats = len(artifact.weight_formats)
        raise InputError(
            f"{label}: must be a float32 network, got {artifact.precision} with {formats} weights in low-bit formats; "
            "pass the original, uncompressed model"
        )


def _check_untrained(settings: CompressSettings, label: str) -> None:
    """Raise an InputError for settings of a training, which an ONNX file does not get."""
    given = {"train_epochs": settings.train_epochs, "teacher": settings.teacher}
    for name, value in given.items():
        if value not in (None, NO_TEACHER):
            raise InputError(
                f"{name} must not be given for {label}, which is compressed as an ONNX model, without training, got "
                f"{value!r}: leave it out, or pass a run, an Arch or a timm model"
            )


def _check_plan(plan: Plan, artifact: Artifact, settings: CompressSettings) -> None:
    """Raise an InputError where a stage cannot be applied to such a network."""
    trains = [stage.name for stage in plan.stages if _must_train(stage)]
    if artifact.network.file is not None and trains:
        raise InputError(
            f"plan: {', '.join(trains)} must train, but ONNX models cannot be trained; remove the step, set recipe to "
            '"none" if that is possible, or pass a run, an Arch or a timm model'
        )
    if "distill" in plan.names and settings.teacher == NO_TEACHER:
        raise InputError("plan: distill needs a teacher: give --teacher FILE.onnx")


def _must_train(stage: Any) -> bool:
    return stage.name in ("distill", "prune", "qat", "binary") or getattr(stage, "recipe", None) is not None
