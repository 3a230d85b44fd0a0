"""The settings of ``nas compress``, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from compress.argument_checks import LARGEST_SEED
from hw_profiles.budget import Budget
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import check_known
from nas.config import LATENCIES, UNREADABLE, Config, budget_of, check_types, quantity, read_toml

NO_TEACHER = "none"
_MOST_IN_TIME = 60
_CHECKS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("seed", lambda n: 0 <= n <= LARGEST_SEED, f"between 0 and {LARGEST_SEED}"),
    ("size", lambda n: n >= 8, "at least 8 pixels"),
    ("max_accuracy_drop", lambda x: 0 <= x <= 100, "between 0 and 100 (percentage points)"),
    ("confidence", lambda x: 0.5 <= x < 1, "at least 0.5 and below 1"),
    ("trials", lambda n: n >= 1, "at least 1"),
    ("train_epochs", lambda x: 0 < x < math.inf, "above 0"),
    ("stage_epochs", lambda x: 0 < x < math.inf, "above 0"),
    ("learning_rate", lambda x: 0 < x < math.inf, "above 0"),
    ("unreadable", lambda name: name in UNREADABLE, f"one of {', '.join(UNREADABLE)}"),
    ("latency_from", lambda name: name in LATENCIES, f"one of {', '.join(LATENCIES)}"),
    ("teacher", lambda name: name == NO_TEACHER or name.endswith(".onnx"), f"an ONNX file or {NO_TEACHER}"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressSettings:
    """The settings of :func:`nas.compress`. Quantities are text with a unit, such as ``"100kB"``.

    ``model`` is what errors and the report call the network. ``data``, ``seed``, ``size`` and ``unreadable`` that are
    not set are those of the run that the network comes from, and else digits, 0, the images' own size and ``refuse``.
    """

    model: str
    data: str | None = None
    device: str = "host"
    latency: str | None = None
    ram: str | None = None
    flash: str | None = None
    energy: str | None = None
    max_accuracy_drop: float = 1.0
    confidence: float = 0.9
    target_size: str | None = None
    time: str | None = None
    plan: str | None = None
    trials: int | None = None
    teacher: str = NO_TEACHER
    train_epochs: float | None = None
    stage_epochs: float = 5.0
    learning_rate: float = 0.1
    latency_from: str = "auto"
    size: int | None = None
    unreadable: str | None = None
    seed: int | None = None
    out: str = "runs/compress"

    def __post_init__(self) -> None:
        check_types(self)
        for name, holds, what in _CHECKS:
            value = getattr(self, name)
            if value is not None and not holds(value):
                raise InputError(f"{name} must be {what}, got {value!r}")
        assert self.budget is not None  # says what is wrong with a limit
        for name in ("time", "target_size"):
            if getattr(self, name) is not None:
                quantity(name, getattr(self, name))
        if self.target_bytes == 0:
            raise InputError(f"target_size must be at least 1 byte, got {self.target_size!r}")

    @property
    def budget(self) -> Budget:
        """The limits."""
        return budget_of(latency=self.latency, ram=self.ram, flash=self.flash, energy=self.energy)

    @property
    def target_bytes(self) -> int | None:
        """What the coded file may have at most; None without such a wish."""
        return None if self.target_size is None else int(quantity("target_size", self.target_size))

    @property
    def seconds(self) -> float | None:
        """The time for everything; None where the epochs decide."""
        return None if self.time is None else quantity("time", self.time)

    @property
    def most_plans(self) -> int:
        """How many plans a search tries: ``trials``, or with a limit of time as many as it allows, else none."""
        return self.trials or (0 if self.time is None else _MOST_IN_TIME)

    def to_toml(self) -> str:
        """A file that :func:`load_settings` reads back; what is not set is left out."""
        return tomli_w.dumps({name: value for name, value in asdict(self).items() if value is not None})

    def differing(self, other: CompressSettings) -> list[str]:
        """Names of the entries in which two settings differ, but for the folder."""
        mine, theirs = asdict(self), asdict(other)
        return [name for name in mine if name != "out" and mine[name] != theirs[name]]

    def with_images_of(self, run: Config | None) -> CompressSettings:
        """The same with every setting of how images are read: what is not given is as in the run that the network
        comes from, so that test images stay test images.

        Raises:
            InputError: another seed than that of the run, by which some test images were trained on.

        >>> settings_of(model="model.onnx").with_images_of(Config(data="photos", seed=3)).seed
        3
        """
        used = run or Config()
        data, seed = self.data or used.data, self.seed
        if run is not None and data == run.data:
            if seed not in (None, run.seed):
                raise InputError(
                    f"--seed must equal the seed of the run, {run.seed}, got {seed}; with a different seed, "
                    "training images would end up in the test set"
                )
            seed = run.seed
        unreadable = self.unreadable or used.unreadable
        return replace(self, data=data, seed=seed or 0, size=self.size or used.size, unreadable=unreadable)


def settings_of(**entries: Any) -> CompressSettings:
    """The settings with these entries; those that are None keep their defaults.

    Raises:
        InputError: an unknown entry (with the nearest known one), or a wrong value.

    >>> settings_of(model="model.onnx", target_size="100kB").target_bytes
    100000
    """
    known = [field.name for field in fields(CompressSettings)]
    for name in entries:
        check_known("unknown entry", name, known)
    return CompressSettings(**{name: value for name, value in entries.items() if value is not None})


def load_settings(path: Path) -> CompressSettings:
    """The settings that a run folder keeps.

    Raises:
        InputError: not TOML, or not the settings of a compression.
    """
    entries = read_toml(path)
    if "model" not in entries:
        raise InputError(f"{path}: not the settings of nas compress, missing key 'model'")
    return settings_of(**entries)
