"""The Config of a run, made from TOML, command-line options or keyword arguments and checked."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import tomli_w

from compress.argument_checks import LARGEST_SEED
from hw_profiles.budget import Budget
from hw_profiles.devices.c99_program import runs_c99
from hw_profiles.devices.device_file import load_device
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean

_UNITS: dict[str, dict[str, float]] = {
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "ram": {"B": 1, "kB": 1e3, "KiB": 1024, "MB": 1e6, "MiB": 1024**2, "GB": 1e9},
    "flash": {"B": 1, "kB": 1e3, "KiB": 1024, "MB": 1e6, "MiB": 1024**2, "GB": 1e9},
    "energy": {"uJ": 1e-3, "mJ": 1.0, "J": 1e3},
    "time": {"s": 1, "min": 60, "h": 3600},
    "target_size": {"B": 1, "kB": 1e3, "KiB": 1024, "MB": 1e6, "MiB": 1024**2, "GB": 1e9},
}
_QUANTITIES = ("latency", "ram", "flash", "energy", "time")
DEFAULT_TIME = "30min"
_DEFAULT_DEVICE = "host"
SPACE_OF_MICROCONTROLLERS = "tiny"
LATENCIES = ("auto", "measured", "estimated")
UNREADABLE = ("refuse", "skip")
EXECUTORS = ("processes", "ray")
# Where the work is done, and by how many workers: a run can be resumed elsewhere.
_WHERE = ("out", "workers", "executor", "address", "cpus", "gpus", "artifacts")
_EPOCHS = ("search_epochs", "teacher_epochs", "train_epochs", "distill_epochs", "prune_epochs", "stage_epochs")
_CHECKS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("trials", lambda n: n >= 1, "at least 1"),
    ("executor", lambda name: name in EXECUTORS, f"one of {', '.join(EXECUTORS)}"),
    ("cpus", lambda n: 0 <= n < math.inf, "at least 0"),
    ("gpus", lambda n: 0 <= n < math.inf, "at least 0"),
    ("workers", lambda n: n >= 1, "at least 1"),
    ("size", lambda n: n >= 8, "at least 8 pixels"),
    ("seed", lambda n: 0 <= n <= LARGEST_SEED, f"in 0..{LARGEST_SEED}"),
    ("max_accuracy_drop", lambda x: 0 <= x <= 100, "in 0..100 percentage points"),
    ("prune_amount", lambda x: 0 < x < 1, "between 0 and 1"),
    ("prune_steps", lambda n: n >= 1, "at least 1"),
    ("unreadable", lambda name: name in UNREADABLE, f"one of {', '.join(UNREADABLE)}"),
    ("latency_from", lambda name: name in LATENCIES, f"one of {', '.join(LATENCIES)}"),
    *((name, lambda x: 0 < x < math.inf, "above 0") for name in (*_EPOCHS, "learning_rate")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The settings of a run. Quantities are text with a unit, such as ``"5ms"``; the methods return numbers.

    docs/settings.md describes each setting. In short:

    - ``latency_from``: ``measured``, ``estimated``, or ``auto``: files are measured if the device is this machine, and
      candidates are estimated if the device file was measured here, with the finalists measured.
    - ``*_epochs`` apply without ``time``; with it, the time decides.
    - ``space`` is ``tiny`` by default where ``device`` is a microcontroller.
    - ``init`` replaces ``space``: ``timm:NAME``, a file of timm's weights, or ``auto`` (whatever weights are found).
      The search then chooses width, depth and resolution of that network.
    - ``workers``: by default, with ``time``, the number that is fastest on this machine; otherwise 1.
    - ``storage``, ``study``, ``artifacts``: a study that several machines share (docs/machines.md).
    - ``executor``, ``address``, ``cpus``, ``gpus``: whether processes of this machine or Ray train candidates.
    - ``stages``: names of ``compress.STAGES`` in their order, separated by commas. ``auto`` is int8 with ``time``, and
      otherwise distillation if there is a teacher, pruning and int8.
    - ``baseline``: a preset that is trained as long as the winner, or ``none``. ``auto`` is ResNet-8, or none with
      ``time``.
    """

    data: str = "digits"
    device: str = _DEFAULT_DEVICE
    latency: str | None = None
    ram: str | None = None
    flash: str | None = None
    energy: str | None = None
    max_accuracy_drop: float = 1.0
    time: str | None = None
    trials: int | None = None
    space: str = "mobilenet"
    init: str | None = None
    sampler: str = "surrogate"
    warm_start: str | None = None
    workers: int | None = None
    storage: str | None = None
    study: str = "search"
    artifacts: str | None = None
    executor: str = "processes"
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    teacher: str = "auto"
    baseline: str = "auto"
    out: str = "runs/run"
    seed: int = 0
    size: int | None = None
    unreadable: str = "refuse"
    latency_from: str = "auto"
    search_epochs: float = 2.0
    teacher_epochs: float = 10.0
    train_epochs: float = 20.0
    distill_epochs: float = 10.0
    prune_epochs: float = 5.0
    prune_amount: float = 0.2
    prune_steps: int = 2
    prune_criterion: str = "taylor"
    stages: str = "auto"
    stage_epochs: float = 5.0
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        check_types(self)
        for name in _QUANTITIES:
            self._number(name)
        if self.storage is not None and self.trials is None:
            raise InputError("storage needs trials, so that all workers know when the study is complete")
        for name, holds, what in _CHECKS:
            value = getattr(self, name)
            if value is not None and not holds(value):
                raise InputError(f"{name} must be {what}, got {value!r}")

    @property
    def budget(self) -> Budget:
        """The limits."""
        return budget_of(latency=self.latency, ram=self.ram, flash=self.flash, energy=self.energy)

    @property
    def seconds(self) -> float | None:
        """The time for everything, or None where the number of trials and epochs decides."""
        return self._number("time")

    def to_toml(self) -> str:
        """A file that :func:`load_config` reads back; what is not set is left out."""
        return tomli_w.dumps({name: value for name, value in self._without_password().items() if value is not None})

    def differing(self, other: Config) -> list[str]:
        """Names of the entries in which two configs differ, but for where the work is done."""
        mine, theirs = self._without_password(), other._without_password()
        return [name for name in mine if name not in _WHERE and mine[name] != theirs[name]]

    def _without_password(self) -> dict[str, Any]:
        entries = asdict(self)
        if self.storage is not None:
            entries["storage"] = re.sub(r"(://[^:/@]*:).*@", r"\1***@", self.storage)
        return entries

    def _number(self, name: str) -> float | None:
        text = getattr(self, name)
        return None if text is None else quantity(name, text)


def budget_of(
    *, latency: str | None = None, ram: str | None = None, flash: str | None = None, energy: str | None = None
) -> Budget:
    """Limits as a user writes them.

    Raises:
        InputError: a quantity without number or unit, or not above 0.

    >>> budget_of(latency="250us", flash="1MB").limits()
    {'latency_ms': 0.25, 'flash_bytes': 1000000.0}
    """
    given = {"latency": latency, "ram": ram, "flash": flash, "energy": energy}
    numbers = {name: None if text is None else quantity(name, text) for name, text in given.items()}
    return Budget(
        latency_ms=numbers["latency"],
        peak_ram_bytes=numbers["ram"],
        flash_bytes=numbers["flash"],
        energy_mj=numbers["energy"],
    )


def quantity(name: str, text: str) -> float:
    """A quantity with its unit, in milliseconds, bytes, millijoules or seconds.

    Raises:
        InputError: no number, no unit or a wrong one, or not above 0.

    >>> quantity("latency", "250us"), quantity("ram", "256kB"), quantity("time", "1.5min")
    (0.25, 256000.0, 90.0)
    """
    units = _UNITS[name]
    match = re.fullmatch(r"\s*(-?\d+(?:\.\d*)?(?:e-?\d+)?)\s*([A-Za-z]+)\s*", str(text))
    if match is None or match[2] not in units:
        raise InputError(f"{name} must be a number with one of the units {', '.join(units)}, got {str(text)!r}")
    value = float(match[1]) * units[match[2]]
    if not 0 < value < math.inf:
        raise InputError(f"{name} must be above 0, got {str(text)!r}")
    return value


def load_config(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The config of a TOML file, if one is given, with the overrides that are not None.

    Raises:
        InputError: no such file, not TOML, an unknown entry (with the nearest known one), or a wrong value.

    >>> load_config(None, {"latency": "5ms"}).budget.latency_ms
    5.0
    """
    given = {} if path is None else _read(Path(path))
    given |= {name: value for name, value in (overrides or {}).items() if value is not None}
    if given.get("time") is None and given.get("trials") is None:
        given["time"] = DEFAULT_TIME
    if given.get("space") is None and runs_c99(load_device(given.get("device", _DEFAULT_DEVICE))):
        given["space"] = SPACE_OF_MICROCONTROLLERS
    known = [field.name for field in fields(Config)]
    for name in given:
        if name not in known:
            raise InputError(f"unknown entry {name!r}{did_you_mean(name, known)} (valid: {', '.join(known)})")
    return Config(**given)


def parse_assignment(text: str) -> tuple[str, Any]:
    """``key=value`` of the command line, the value as TOML or else as text.

    >>> parse_assignment("train_epochs=3"), parse_assignment("data=digits")
    (('train_epochs', 3), ('data', 'digits'))
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set must be key=value, got {text!r}")
    try:
        return name.strip(), tomllib.loads(f"x = {value}")["x"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return name.strip(), value


def check_types(config: Any) -> None:
    """Make every entry of a frozen dataclass one of its type, such as a float of a whole number.

    Raises:
        InputError: an entry of another type.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if value is not None or not str(field.type).endswith("| None"):
            object.__setattr__(config, field.name, _typed(field.name, value, str(field.type)))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"config {path}: there is no such file")
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"config {path}: {error}") from None


def _typed(name: str, value: Any, kind: str) -> Any:
    if kind.startswith("float") and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    wanted = {"s": str, "i": int, "f": float}[kind[0]]
    if isinstance(value, Path) and wanted is str:
        return str(value)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise InputError(f"{name} must be of type {kind.split(' |', maxsplit=1)[0]}, got {value!r}")
    return value
