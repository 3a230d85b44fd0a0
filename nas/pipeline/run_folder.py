"""A run's folder: locked while it is worked in, bound to its config, with a clock that counts across restarts."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compress.atomic_files import read_json, write_json, write_text
from compress.data.dataset import Dataset
from hw_profiles.devices.machine import conditions
from nas.config import Config, load_config
from nas.errors import InputError

log = logging.getLogger("nas")
_RESERVE_SECONDS, _RESERVE_SHARE = 10.0, 0.05
_PACKAGES = ("fitnas", "torch", "optuna", "timm", "onnx", "onnxruntime", "numpy")


def check_config(config: Config) -> None:
    """Refuse a folder that holds a run of another config, or something else than a run.

    Raises:
        InputError: with the names of the entries that differ.
    """
    folder = Path(config.out)
    if folder.is_file():
        raise InputError(f"--out {folder}: must be a folder, it is a file")
    saved = folder / "config.toml"
    if saved.is_file():
        try:
            differing = config.differing(load_config(saved))
        except ValueError as error:
            raise InputError(f"{saved}: not a config of this version ({error})") from None
        if differing:
            raise InputError(
                f"{folder} holds a run of another config, it differs in {', '.join(differing)}: choose another --out"
            )
    elif folder.is_dir() and any(p.name != "run.lock" for p in folder.iterdir()):
        raise InputError(f"--out {folder}: must be new, empty or a run of ours, it holds other files")


def check_data(folder: Path, data: Dataset) -> None:
    """Refuse to go on with other images than the run began with.

    Raises:
        InputError: labels, splits, sizes or the colours' statistics differ.
    """
    path = folder / "data.json"
    digest = hashlib.sha256(data.preprocessing.to_json().encode())
    for split in (data.train, data.val, data.test):
        digest.update(split.labels.tobytes())
    if not path.is_file():
        write_json(path, {"sha256": digest.hexdigest()})
    if read_json(path)["sha256"] != digest.hexdigest():
        raise InputError(f"{folder} holds a run on other images than are in {data.name} now: choose another --out")


@contextmanager
def open_folder(config: Config) -> Iterator[Path]:
    """The run's folder, locked; config.toml and env.json are written, and run.log is appended to.

    Raises:
        InputError: another run is going on there.
    """
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT, 0o644)
    handler = None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"a run is going on in {folder}: wait for it or choose another --out") from None
        check_config(config)
        if not (folder / "config.toml").is_file():
            write_json(folder / "env.json", environment())
            write_text(folder / "config.toml", config.to_toml())
        handler = logging.FileHandler(folder / "run.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        yield folder
    finally:
        if handler is not None:
            log.removeHandler(handler)
            handler.close()
        os.close(descriptor)


def environment() -> dict[str, Any]:
    """Versions and machine."""
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "cores": os.cpu_count(),
        "measuring": conditions(1),
    }


@dataclass(slots=True)
class Clock:
    """Divides what is left of the time among the phases still to come, and remembers what it gave.

    Without ``total`` every phase may take as long as it needs. ``weights`` are the phases' relative shares. What was
    given stands in plan.json, so a run that goes on gives the same again; time that passed between two starts does
    not count.
    """

    path: Path
    total: float | None
    weights: Mapping[str, float]
    spent_before: float = 0.0
    given: dict[str, dict[str, float]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.path.is_file():
            saved = read_json(self.path)
            self.spent_before, self.given = saved["spent_seconds"], saved["phases"]

    @property
    def spent(self) -> float:
        """Seconds that this run has taken, earlier starts included."""
        return self.spent_before + time.monotonic() - self.started

    def seconds_for(self, phase: str) -> float | None:
        """Seconds for a phase, decided when it is first asked for; None without a limit."""
        if self.total is None:
            return None
        if phase not in self.given:
            coming = sum(weight for name, weight in self.weights.items() if name not in self.given)
            left = self.total - self.spent - (_RESERVE_SECONDS + _RESERVE_SHARE * self.total)
            seconds = max(1.0, left * self.weights[phase] / coming)
            self.given[phase] = {"seconds": seconds, "begun_at": self.spent}
        self.save()
        return self.given[phase]["seconds"]

    def left_of(self, phase: str) -> float | None:
        """Seconds until a phase that was begun shall end, at least 0."""
        seconds = self.seconds_for(phase)
        return None if seconds is None else max(0.0, self.given[phase]["begun_at"] + seconds - self.spent)

    def save(self) -> None:
        """Write plan.json."""
        write_json(self.path, {"spent_seconds": self.spent, "phases": self.given})
