"""Loads the MODEL argument of ``nas compress`` as an artifact, with the dataset that it was trained on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from compress.atomic_files import read_json
from compress.data.dataset import Dataset
from compress.networks.artifact import Artifact
from compress.networks.as_artifact import Model, as_artifact
from compress.networks.network_source import OnnxFile
from compress.networks.onnx_export import onnx_bytes
from compress.networks.timm_network import timm_for
from compress.stages.stage_order import STAGES
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean
from hw_profiles.torch_io.timm_models import check_timm_name
from nas.config import Config, config_of_folder
from search_spaces.arch import Arch
from search_spaces.presets import list_presets, preset

_TIMM = "timm:"
_VALID = "a run folder, an arch.json, an .onnx file, a preset, timm:NAME or module:name"


Load = Callable[[Dataset, bool], Artifact]
"""The network with its weights for these images; whether it may be trained, so that it needs none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """A model before its data are known: a ``label`` for people, how it is loaded, and the run that it comes from."""

    label: str
    load: Load
    run: Config | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A network that reads the images that it was loaded for. ``notes`` tell what cannot be done with it."""

    artifact: Artifact
    notes: tuple[str, ...] = ()


def given_model(model: Model) -> Given:
    """What a model is, from its name, path or object.

    Raises:
        InputError: nothing of that name, or a folder or file that holds no network.
    """
    if isinstance(model, str | Path):
        return _of_path(Path(model)) or _of_name(str(model))
    return _of_object(model)


def loaded_model(given: Given, data: Dataset, *, trains: bool) -> Loaded:
    """The network with its weights, for these images; with ``trains`` one without weights is made, to be trained.

    Raises:
        InputError: no weights and nothing may train, or a network that does not read these images.
    """
    artifact = given.load(data, trains)
    network = artifact.network
    try:
        network.require_savable()
    except InputError:
        return _as_file(artifact, given.label)
    if network.file is not None:
        return Loaded(artifact=artifact, notes=(f"{given.label}: an ONNX file is not trained: no pruning, no QAT",))
    return Loaded(artifact=artifact)


def _of_object(model: Model, label: str | None = None) -> Given:
    """A model that is there: an Artifact, a module or an Arch."""
    if isinstance(model, Arch):
        return _of_arch(model, label)
    if isinstance(model, Artifact):
        return Given(label=label or model.network.label, load=_loading(model.bare()))
    return Given(label=label or type(model).__name__, load=_loading(model))


def _loading(model: Model) -> Load:
    return lambda data, trains: as_artifact(model, data)


def _of_arch(arch: Arch, label: str | None = None) -> Given:
    name = label or f"Arch {arch.id}"

    def load(data: Dataset, trains: bool) -> Artifact:
        if arch.weights is None and not trains:
            raise InputError(
                f"{name} has no trained weights: pass a folder that contains them, or use --train-epochs N"
            )
        return as_artifact(arch, data)

    return Given(label=name, load=load)


def _of_path(path: Path) -> Given | None:
    """The network in a file or folder; None where the text is no path."""
    if path.is_dir():
        return _of_folder(path)
    suffix = path.suffix.lower()
    if suffix not in (".json", ".onnx"):
        return None
    if not path.is_file():
        raise InputError(f"file not found: {path}")
    return _of_arch_file(path) if suffix == ".json" else Given(label=str(path), load=_loading(path))


def _of_name(text: str) -> Given:
    if text.startswith(_TIMM):
        check_timm_name(text.removeprefix(_TIMM))
        return Given(label=text, load=partial(_of_timm, text))
    if ":" in text:
        return _of_object(_users_own(text), text)
    if text in list_presets():
        return Given(label=text, load=partial(_of_preset, text))
    hint = did_you_mean(text, list_presets())
    raise InputError(f"MODEL must be {_VALID}, got {text!r}{hint}")


def _of_preset(name: str, data: Dataset, trains: bool) -> Artifact:
    arch = preset(name, input_shape=data.preprocessing.input_shape, num_classes=data.num_classes)
    return _of_arch(arch, name).load(data, trains)


def _of_timm(model: str, data: Dataset, trains: bool) -> Artifact:
    """With timm's weights; where they are not to be had, random ones if it may train."""
    try:
        return as_artifact(model, data, trains=trains)
    except InputError as error:
        if not trains:
            raise InputError(f"{error}, or use --train-epochs N to train it") from None
    source = timm_for(model.removeprefix(_TIMM), data.preprocessing.input_shape, data.num_classes)
    bare = Artifact(source=source, weights={}, preprocessing=data.preprocessing)
    return bare.with_model(source.build())


def _as_file(artifact: Artifact, label: str) -> Loaded:
    """A module that nobody could build again, as its ONNX file."""
    file = OnnxFile(data=onnx_bytes(artifact), label=label, stated_shape=artifact.source.input_shape)
    kept = Artifact(source=file, weights={}, preprocessing=artifact.preprocessing)
    note = (
        f"{label}: this module cannot be rebuilt, so its ONNX file is compressed, without training: no pruning, no QAT"
    )
    return Loaded(artifact=kept, notes=(note,))


def _of_folder(folder: Path) -> Given:
    """The network of a run in float, or an artifact."""
    if not (folder / "artifact.json").is_file():
        raise InputError(f"{folder}: holds no finished run and no artifact (MODEL must be {_VALID})")
    artifact, run = Artifact.load(folder), None
    if (folder / "metrics.json").is_file():
        home = folder / _last_trainable(artifact, folder)
        artifact = Artifact.load(home) if (home / "artifact.json").is_file() else artifact
        run = config_of_folder(folder)
    return replace(_of_object(artifact, str(folder)), run=run)


def _last_trainable(artifact: Artifact, folder: Path) -> str:
    """Where the last accepted network of a run is before any lossy stage."""
    place = "winner" if (folder / "winner").is_dir() else "reference"
    for record in artifact.history:
        if STAGES[record["stage"]].lossy:
            break
        name = f"stages/{Path(record['folder']).name}"
        if record["accepted"] and (folder / name).is_dir():  # a compression has its stages elsewhere
            place = name
    return place


def _of_arch_file(path: Path) -> Given:
    """An Arch; with the weights beside it where it lies in the folder of an artifact."""
    if (path.parent / "artifact.json").is_file() and read_json(path.parent / "artifact.json").get("source") == "arch":
        return _of_object(Artifact.load(path.parent), str(path))
    try:
        arch = Arch.from_json(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not the JSON of an Arch ({error})") from None
    return _of_arch(arch, str(path))


def _users_own(text: str) -> Model:
    """``module:name``, a module of torch or a function that makes one; the current folder is searched last."""
    module, _, attribute = text.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
        made = found if isinstance(found, nn.Module | Arch) else found()
    except (Exception, SystemExit) as error:
        raise InputError(f"{text}: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module | Arch):
        raise InputError(f"{text}: must be a torch module, an Arch or a function that returns one, got {type(made)}")
    return made
