"""The teacher of a run: a timm model trained on the data, an ONNX file, or none."""

from __future__ import annotations

import io
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.atomic_files import read_json, write_bytes, write_json
from compress.data.dataset import Dataset
from compress.progress import progress
from compress.training.evaluation import training_place
from compress.training.loop import Recipe
from compress.training.pace import wait_for
from compress.training.teachers import (
    SMALLEST_TIMM_SIDE,
    ModuleTeacher,
    OnnxTeacher,
    Teacher,
    Upsampled,
    beats_chance,
    teacher_accuracy,
    teacher_network,
)
from hw_profiles.devices.device_file import load_device
from hw_profiles.errors import InputError
from hw_profiles.measurement.latency_measurement import measure
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.torch_io.timm_models import check_timm_name
from nas.config import Config
from nas.execution.long_trainings import shielded_teacher
from nas.pipeline.run_folder import log
from nas.pipeline.time_budget import Clock
from nas.results.teacher_info import TeacherInfo
from search_spaces.arch import Arch
from search_spaces.presets import preset

NO_TEACHER, AUTO, _TIMM = "none", "auto", "timm:"
_AUTO_NAME, _AUTO_MACS, _AUTO_SIDE = "resnet10t", 1.1e9, 224  # timm's table
_TIMED_IMAGES = 8
# A teacher that sees the data less often is no better than the student; one that was trained on other images before
# learned 98.5% of photographs of hands in 15 epochs.
_FEWEST_EPOCHS, _FEWEST_EPOCHS_PRETRAINED = 30, 15


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoTeacher:
    """What is trained as the teacher of ``auto``: its ``name`` for people, the ``network`` (a name of timm, or an Arch
    with trained weights), its multiplications for an image, and the fewest epochs that make it one."""

    name: str
    network: str | Arch
    macs: float
    fewest_epochs: int


def auto_teacher(data: Dataset, pretrained: str | None, weights: Path | None) -> AutoTeacher:
    """The preset ``pretrained`` with a file of its weights, if a run starts from such; or else a small network of timm.

    Both read an image at 64 pixels at least.
    """
    channels, height, width = data.preprocessing.input_shape
    scale = max(1.0, SMALLEST_TIMM_SIDE / min(height, width))
    if pretrained is None or weights is None:
        macs = _AUTO_MACS * height * width * scale**2 / _AUTO_SIDE**2
        return AutoTeacher(name=f"{_TIMM}{_AUTO_NAME}", network=_AUTO_NAME, macs=macs, fewest_epochs=_FEWEST_EPOCHS)
    shape = (channels, round(height * scale), round(width * scale))
    arch = preset(pretrained, input_shape=shape, num_classes=data.num_classes, weights=weights)
    return AutoTeacher(
        name=f"{pretrained}, pretrained",
        network=arch,
        macs=arch.workload().macs,
        fewest_epochs=_FEWEST_EPOCHS_PRETRAINED,
    )


def check_teacher(name: str) -> None:
    """Refuse what cannot be a teacher before anything is read.

    Raises:
        InputError: not one of the forms, no such file, no such network.
    """
    if name in (NO_TEACHER, AUTO):
        return
    if name.startswith(_TIMM):
        check_timm_name(name.removeprefix(_TIMM))
    elif not name.endswith(".onnx") or not Path(name).is_file():
        raise InputError(f"--teacher must be timm:NAME, an ONNX file, none or auto, got {name!r}")


def may_be_trained(name: str) -> bool:
    """Whether a run may have to train its teacher."""
    return name == AUTO or name.startswith(_TIMM)


def check_teacher_file(name: str, data: Dataset) -> None:
    """Refuse an ONNX file that does not read these images, or is no better on them than chance.

    Raises:
        InputError: it is not an image classifier for this data.
    """
    if not name.endswith(".onnx"):
        return
    right = teacher_accuracy(OnnxTeacher(Path(name), data), data.val)
    if not beats_chance(right, data.val):
        raise InputError(
            f"teacher {name} is no better than chance ({right:.1%} validation accuracy); "
            "check that it expects pixels in [0, 1], or add the preprocessing metadata of fitnas"
        )


def prepare_teacher(
    config: Config, auto: AutoTeacher, data: Dataset, folder: Path, clock: Clock, *, to_beat: float | None = None
) -> TeacherInfo:
    """The teacher, trained if need be; what was trained or decided before is found in ``folder/teacher``.

    One that is trained with ``auto`` must get more of the validation images right than ``to_beat``, such as what the
    best candidate got right after a short training; otherwise it is not used.
    """
    if config.teacher == NO_TEACHER:
        return TeacherInfo()
    if config.teacher.endswith(".onnx"):
        return _of_file(Path(config.teacher), data)
    if clock.total is not None and "teacher" not in clock.weights:
        return _no_teacher(
            f"no teacher: there is not enough time to train {auto.name} for the {auto.fewest_epochs} epochs that it "
            "needs to be useful"
        )
    recipe = _recipe(config, clock)
    name, network = config.teacher, auto.network if config.teacher == AUTO else config.teacher.removeprefix(_TIMM)
    home = folder / "teacher"
    if config.teacher == AUTO:
        why_not = _why_no_teacher(auto, data, recipe, home)
        if why_not:
            clock.given.pop("teacher", None)
            return _no_teacher(why_not)
        name = auto.name
    with progress("teacher") as report:
        teacher = shielded_teacher(network, data, recipe, home, seed=config.seed, report=report)
    facts = _facts(teacher, data, home)
    if config.teacher == AUTO and recipe.seconds is not None and facts["val_accuracy"] <= (to_beat or 0.0):
        return _no_teacher(
            f"no teacher: {name} has a validation accuracy of {facts['val_accuracy']:.1%}, "
            f"the best candidate {to_beat:.1%} after its short training"
        )
    return TeacherInfo(teacher, {"name": name, **facts})


def _no_teacher(why: str) -> TeacherInfo:
    log.info(why)
    return TeacherInfo(None, {"why_none": why})


def _recipe(config: Config, clock: Clock) -> Recipe:
    seconds = clock.seconds_for("teacher")
    rate = 0.5 * config.learning_rate
    if seconds is None:
        return Recipe(epochs=config.teacher_epochs, learning_rate=rate)
    return Recipe(epochs=config.teacher_epochs * 2, seconds=seconds, learning_rate=rate, bfloat16=None)


def _why_no_teacher(auto: AutoTeacher, data: Dataset, recipe: Recipe, home: Path) -> str | None:
    """Whether the time is too short for a teacher, judged by its speed here; decided once and kept."""
    decision = home / "decision.json"
    if not decision.is_file():
        why = None
        if recipe.seconds is not None:
            epochs = _images_per_second(auto, data) * recipe.seconds / len(data.train)
            if epochs < auto.fewest_epochs:
                why = (
                    f"no teacher: {recipe.seconds:.0f} s are {epochs:.1f} epochs of {auto.name}, "
                    f"at least {auto.fewest_epochs} are needed"
                )
        write_json(decision, {"why_none": why})
    why_none: str | None = read_json(decision)["why_none"]
    return why_none


def _images_per_second(auto: AutoTeacher, data: Dataset) -> float:
    """Of the faster of two steps on few images: the first one is slow."""
    place = training_place()
    model = teacher_network(auto.network, data).to(place).to(memory_format=torch.channels_last)
    shape = (_TIMED_IMAGES, *data.preprocessing.input_shape)
    x = torch.zeros(shape, device=place).contiguous(memory_format=torch.channels_last)
    best = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(place.type, dtype=torch.bfloat16):
            value = model(x).float().sum()
        value.backward()
        wait_for(place)
        best = max(best, len(x) / (time.perf_counter() - start))
    return best


def _of_file(path: Path, data: Dataset) -> TeacherInfo:
    teacher = OnnxTeacher(path, data)
    facts = {"name": path.name, **_file_facts(path), "val_accuracy": teacher_accuracy(teacher, data.val)}
    return TeacherInfo(teacher, facts)


def _facts(teacher: Teacher, data: Dataset, home: Path) -> dict[str, Any]:
    """Accuracy and cost of a trained teacher, taken once and kept beside it."""
    kept = home / "facts.json"
    if not kept.is_file():
        assert isinstance(teacher, ModuleTeacher)
        exported = _export(teacher.model, data, home / "model.onnx")
        facts = _file_facts(home / "model.onnx") if exported else {}
        params = sum(p.numel() for p in teacher.model.parameters())
        write_json(kept, {**facts, "params": params, "val_accuracy": teacher_accuracy(teacher, data.val)})
    return read_json(kept)


def _export(teacher: nn.Module, data: Dataset, path: Path) -> bool:
    """Write the network of the zoo as ONNX to be timed, without the enlargement before it; False where torch cannot."""
    assert isinstance(teacher, Upsampled)
    x = torch.zeros(1, data.preprocessing.channels, *teacher.size)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(teacher.model, (x,), buffer, dynamo=False, opset_version=20)  # type: ignore[arg-type]
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            log.info("the teacher cannot be exported to ONNX, so its latency is unknown: %s", error)
            return False
    write_bytes(path, buffer.getvalue())
    return True


def _file_facts(path: Path) -> dict[str, Any]:
    latency = measure(path, load_device("host"), max_rounds=15)
    facts: dict[str, Any] = {
        "file_bytes": path.stat().st_size,
        "latency_ms": latency.ms,
        "latency_low_ms": latency.low_ms,
        "latency_high_ms": latency.high_ms,
    }
    try:
        workload = read_onnx(path)
    except ValueError as error:
        log.info("MACs of the teacher are not known: %s", error)
        return facts
    return {**facts, "macs": workload.macs}
