"""The folder of a run: locked while in use, bound to its config and data."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from compress.atomic_files import read_json, write_json, write_text
from compress.data.dataset import Dataset
from compress.data.image_cache import chunk_size
from hw_profiles.devices.machine import conditions
from nas.config import Config, load_config
from nas.errors import InputError, NothingFitsError, user_input

log = logging.getLogger("fitnas")
_BEFORE_THE_CONFIG = ("run.lock", "env.json", "env.json.partial", "config.toml.partial")  # what a kill may leave
_BEFORE_THE_WORK = (
    "config.toml", "env.json", "data.json", "files.json", "init.json", "plan.json", "time_plan.json", "workers.json",
    "clock.json", "run.log",
)  # fmt: skip
_GIVEN_FILES = ("device", "teacher", "init")  # settings that may name a file; a file of data is known by its images
_MOST_HASHED = 5000  # images of a split
FOLDERS_STUDY = "search"  # the name of the study in study.db
RUN_SCHEMA = 3  # of everything that a run leaves in its folder; it rises when an earlier run cannot be resumed
_PACKAGES = ("fitnas", "torch", "optuna", "timm", "onnx", "onnxruntime", "numpy")


class FolderConfig(Protocol):
    """The settings to which a folder is bound."""

    @property
    def out(self) -> str:
        """The folder."""

    def to_toml(self) -> str:
        """What is written to its config.toml."""

    def differing(self, other: Any) -> Sequence[str]:
        """Names of the entries in which they differ from others."""


C = TypeVar("C", bound=FolderConfig)


def check_config(config: C, load: Callable[[Path], FolderConfig] = load_config) -> C:
    """The config, unless its folder holds a run of another one, or something else than a run; ``load`` reads such a
    config from a file.

    Raises:
        InputError: with the names of the entries that differ.
    """
    folder = Path(config.out)
    if folder.is_file():
        raise InputError(f"--out {folder}: must be a folder, but it is a file")
    saved = folder / "config.toml"
    if saved.is_file():
        _check_schema(folder)
        try:
            differing = config.differing(load(saved))
        except ValueError as error:
            raise InputError(f"{saved}: not a config of this version ({error})") from None
        if differing:
            raise InputError(
                f"{folder} contains a run with different settings ({', '.join(differing)}); choose another --out"
            )
    elif folder.is_dir() and any(p.name not in _BEFORE_THE_CONFIG for p in folder.iterdir()):
        raise InputError(f"--out {folder}: must be a new or empty folder or that of a run, but it holds other files")
    return config


def _check_schema(folder: Path) -> None:
    found = read_json(folder / "env.json") if (folder / "env.json").is_file() else {}
    schema = found.get("schema", 1)
    if schema != RUN_SCHEMA:
        packages = found.get("packages")
        version_of = packages.get("fitnas", "unknown") if isinstance(packages, dict) else "unknown"
        raise InputError(
            f"{folder} was created by fitnas {version_of} (schema {schema}) and cannot be resumed by this version "
            f"(schema {RUN_SCHEMA}); choose another --out"
        )


def check_data(folder: Path, data: Dataset) -> None:
    """Refuse to resume a run with other images than it was started with.

    Raises:
        InputError: labels, splits, sizes, the colors' statistics or pixels of up to 5,000 images of a split differ.
    """
    path = folder / "data.json"
    mine = {"sha256": data_digest(data), "pixels": _pixel_digest(data)}
    if not path.is_file():
        write_json(path, mine)
    kept = read_json(path, "sha256")
    if any(kept.get(name, digest) != digest for name, digest in mine.items()):
        raise InputError(
            f"{folder} contains a run with different images, those in {data.name} have changed; choose another --out"
        )


def check_files(folder: Path, config: Config) -> None:
    """Refuse to resume a run whose device file, teacher or weights to start from have changed.

    Raises:
        InputError: with the name of the setting.
    """
    given = {name: Path(str(getattr(config, name))) for name in _GIVEN_FILES}
    found = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in given.items() if file.is_file()}
    path = folder / "files.json"
    if not path.is_file():
        write_json(path, found)
    kept = read_json(path)
    for name, digest in found.items():
        if kept.get(name, digest) != digest:
            raise InputError(
                f"{folder} contains a run with a different {name}, the file {given[name]} has changed; "
                "choose another --out"
            )


def check_init(folder: Path, facts: Mapping[str, Any]) -> None:
    """Store in ``folder/init.json`` what a run with ``--init`` starts from, and refuse to resume it from anything else.

    Raises:
        InputError: other weights are found now than when the run began.
    """
    path = folder / "init.json"
    if not facts:
        return
    if not path.is_file():
        write_json(path, facts)
        log.info(facts["text"])
    kept = read_json(path, "preset", "text")
    if kept["preset"] != facts["preset"]:
        raise InputError(f"{folder} holds a run that {kept['text']}; now it {facts['text']}: choose another --out")


def data_digest(data: Dataset) -> str:
    """SHA-256 of labels, splits, sizes and the colors' statistics."""
    digest = hashlib.sha256(data.preprocessing.to_json().encode())
    for split in (data.train, data.val, data.test):
        digest.update(split.labels.tobytes())
    return digest.hexdigest()


def _pixel_digest(data: Dataset) -> str:
    digest = hashlib.sha256()
    for split in data.distinct_splits:
        chosen = np.unique(np.linspace(0, len(split) - 1, min(len(split), _MOST_HASHED)).astype(np.int64))
        rows = chunk_size(split.images[:1].size)
        for start in range(0, len(chosen), rows):
            digest.update(split.images[chosen[start : start + rows]].tobytes())
    return digest.hexdigest()


@contextmanager
def open_folder(config: FolderConfig, load: Callable[[Path], FolderConfig] = load_config) -> Iterator[Path]:
    """The run's folder, locked; config.toml and env.json are written, and run.log is appended to. A new folder in which
    the work is refused before anything was done takes other settings again.

    Raises:
        InputError: another run is using the folder.
    """
    folder = Path(config.out)
    lock = FileLock(folder / "run.lock", blocking=False)
    try:
        with user_input():  # a folder that cannot be made or written
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout:
        raise InputError(f"{folder} is in use by another run; wait for it to finish or choose another --out") from None
    handler, is_new = None, False
    try:
        check_config(config, load)
        is_new = not (folder / "config.toml").is_file()
        if is_new:
            write_json(folder / "env.json", environment())
            write_text(folder / "config.toml", config.to_toml())
        handler = logging.FileHandler(folder / "run.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        yield folder
    except (InputError, NothingFitsError):
        if is_new:
            _forget(folder)
        raise
    finally:
        if handler is not None:
            log.removeHandler(handler)
            handler.close()
        lock.release()


def _forget(folder: Path) -> None:
    """Remove what is written before the work begins, unless there is more."""
    if {path.name for path in folder.iterdir()} <= {*_BEFORE_THE_WORK, "run.lock"}:
        for name in _BEFORE_THE_WORK:
            (folder / name).unlink(missing_ok=True)


def environment() -> dict[str, Any]:
    """Versions and machine."""
    return {
        "schema": RUN_SCHEMA,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "cores": os.cpu_count(),
        "measuring": conditions(1),
    }
