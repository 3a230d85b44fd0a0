"""The record in a shared study that tells workers the settings; workers with other settings are rejected."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, download_artifact, upload_artifact

from compress.data.dataset import Dataset
from compress.training.loop import Recipe
from hw_profiles.devices.device import Device
from hw_profiles.devices.device_file import load_device, to_toml
from hw_profiles.devices.machine import matches_this_machine
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean
from nas.config import Config
from nas.engine.search import study_at
from nas.pipeline.run_folder import data_digest
from nas.samplers.trial_attributes import ACCURACY
from nas.storages.dashboard import describe
from nas.storages.open_storage import open_storage, storage_label
from search_spaces.space import Space, SpaceWithPresets

RECORD = "fitnas"
"""The attribute of a study that holds its record."""
SHARED_SCHEMA = 1
# Entries of the config that decide what a candidate is, costs and learns.
_SHARED = (
    "device", "latency", "ram", "flash", "energy", "trials", "space", "init", "sampler", "seed", "size", "unreadable",
    "search_epochs", "learning_rate",
)  # fmt: skip


def shared_device(device: Device) -> Device:
    """The device as all workers see it, so that a candidate costs the same on each.

    How far an estimate may be off depends on whether the machine's numbers are those of the machine that asks. Here
    that is decided once, by the machine that makes the study.
    """
    if matches_this_machine(device.conditions, device.threads):
        return replace(device, calibrated=tuple(device.costs))
    return replace(device, conditions={"machine": "another one"})


def record_of(
    config: Config, space: Space | SpaceWithPresets, data: Dataset, device: Device, recipe: Recipe
) -> dict[str, Any]:
    """What a study tells its workers, in JSON types."""
    entries = asdict(config)
    choices = {name: list(values) for name, values in space.choices.items()}
    return {
        "schema": SHARED_SCHEMA,
        "fitnas": version("fitnas"),
        "config": {name: entries[name] for name in _SHARED},
        "space": choices,
        "data": {
            "sha256": data_digest(data),
            "images": {name: len(getattr(data, name)) for name in ("train", "val", "test")},
            "classes": list(data.preprocessing.class_names),
            "input_shape": list(data.preprocessing.input_shape),
        },
        "device": to_toml(device),
        "recipe": asdict(recipe),
        "init": None,
    }


def differences(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """What two records differ in, one text for each entry.

    >>> differences({"config": {"seed": 0}}, {"config": {"seed": 1}})
    ['seed: 0 in the study, 1 here']
    """
    found: list[str] = []
    for part in ("config", "data"):
        ours, others = mine.get(part, {}), theirs.get(part, {})
        names = [name for name in ours if json.dumps(ours[name]) != json.dumps(others.get(name))]
        if part == "data" and "sha256" in names and (len(names) > 1 or found):
            names.remove("sha256")  # what makes it differ says more
        label = {"sha256": "the labels of the images"}
        for name in names:
            if name == "sha256":
                found.append(f"{label[name]} differ")
            else:
                found.append(f"{name}: {_short(others.get(name))} in the study, {_short(ours[name])} here")
    ours, others = mine.get("space", {}), theirs.get("space", {})
    for name in dict.fromkeys((*others, *ours)):
        if json.dumps(ours.get(name)) != json.dumps(others.get(name)):
            found.append(f"space, {name}: {_short(others.get(name))} in the study, {_short(ours.get(name))} here")
    for name in ("device", "recipe"):
        if json.dumps(theirs.get(name)) != json.dumps(mine.get(name)):
            found.append(f"the {name} differs")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def publish(config: Config, record: Mapping[str, Any], init: Path | None) -> optuna.Study:
    """The study at ``config.storage`` with the record, made where there is none.

    Raises:
        InputError: it holds another record, or weights are to be shared and nothing says where.
    """
    assert config.storage is not None
    study = study_at(open_storage(config.storage), config.study, (ACCURACY,))
    found = study.user_attrs.get(RECORD)
    if found is None and study.get_trials(deepcopy=False):
        raise InputError(f"the study {config.study!r} in {storage_label(config.storage)} was not made by `nas search`")
    if found is not None:
        check_record(found, record, config.study)
        return study
    weights = None if init is None else {"artifact": _upload(init, config, study), "sha256": _sha256(init)}
    study.set_user_attr(RECORD, {**record, "init": weights})
    check_record(study.user_attrs[RECORD], record, config.study)  # another process may have made it at the same time
    limits = ", ".join(f"{name} at most {limit:g}" for name, limit in config.budget.limits().items()) or "none"
    note = f"Space `{config.space}`, {record['data']['images']['train']} training images. Limits: {limits}."
    describe(study, (ACCURACY,), note)
    return study


def read_record(config_storage: str, name: str) -> tuple[optuna.Study, dict[str, Any]]:
    """A study by name, and its record.

    Raises:
        InputError: there is no such study, or it was not made by `nas search` or by another version.
    """
    path = Path(config_storage.removeprefix("journal:"))
    if "://" not in config_storage and not path.is_file():
        raise InputError(f"--storage {config_storage}: file not found")
    storage = open_storage(config_storage)
    assert storage is not None
    names = [study.study_name for study in storage.get_all_studies()]
    if name not in names:
        valid = f" (available: {', '.join(sorted(names))})" if names else ": it contains no study"
        raise InputError(
            f"study {name!r} not found in {storage_label(config_storage)}{did_you_mean(name, names)}{valid}"
        )
    study = optuna.load_study(study_name=name, storage=storage)
    record = study.user_attrs.get(RECORD)
    if not isinstance(record, dict):
        raise InputError(f"the study {name!r} was not made by `nas search --storage`, so a worker cannot join it")
    _check_schema(record, name)
    return study, record


def device_of(record: Mapping[str, Any]) -> Device:
    """The device that a study holds."""
    with tempfile.TemporaryDirectory(prefix="fitnas-") as folder:
        path = Path(folder) / "device.toml"
        path.write_text(record["device"])
        return load_device(path)


def recipe_of(record: Mapping[str, Any]) -> Recipe:
    """How candidates are trained."""
    return Recipe(**record["recipe"])


def download_init(record: Mapping[str, Any], artifacts: str | None, folder: Path) -> Path | None:
    """The weights to start from, where the study has any.

    Raises:
        InputError: nothing says where they lie, or they are not those that the study was made with.
    """
    init = record.get("init")
    if init is None:
        return None
    path = folder / f"{init['sha256'][:16]}.safetensors"
    if not path.is_file():
        store = _store(artifacts)
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        try:
            download_artifact(artifact_store=store, file_path=str(partial), artifact_id=init["artifact"])
        except optuna.artifacts.exceptions.ArtifactNotFound:
            raise InputError(
                f"--artifacts {artifacts}: does not contain the weights that the study starts from"
            ) from None
        partial.replace(path)
    if _sha256(path) != init["sha256"]:
        raise InputError(f"--artifacts {artifacts}: its weights are not those that the study was made with")
    return path


def check_record(theirs: Mapping[str, Any], mine: Mapping[str, Any], name: str) -> None:
    """Refuse to work on a study with another config, space or other images than it was made with.

    Raises:
        InputError: with what differs.
    """
    _check_schema(theirs, name)
    differing = differences(theirs, mine)
    if differing:
        raise InputError(f"the study {name!r} was made with other settings: {'; '.join(differing)}")


def _check_schema(record: Mapping[str, Any], name: str) -> None:
    if record.get("schema") != SHARED_SCHEMA:
        raise InputError(
            f"the study {name!r} has schema {record.get('schema')} (fitnas {record.get('fitnas')}), "
            f"this version works on schema {SHARED_SCHEMA}"
        )


def _store(artifacts: str | None) -> FileSystemArtifactStore:
    if artifacts is None:
        raise InputError(
            "a study that starts from pretrained weights needs --artifacts, a folder that all workers can read"
        )
    Path(artifacts).mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(base_path=artifacts)


def _upload(init: Path, config: Config, study: optuna.Study) -> str:
    return str(upload_artifact(artifact_store=_store(config.artifacts), file_path=str(init), study_or_trial=study))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
