"""The Config of a run, made from TOML, command-line options or keyword arguments and checked."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
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
_TYPES: dict[str, type[str] | type[int] | type[float]] = {"str": str, "int": int, "float": float}
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


TASK, PLACE, SEARCH, TRAINING = "Task and limits", "Time and place", "Search", "Training and compression"


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What a user reads about one setting: its section, its meaning, what holds where it is ``None``, and an example.

    ``option``: the command line has an option of that name; the others are given by ``--set`` and in files.
    """

    section: str
    text: str
    unset: str
    example: str | int | None
    metavar: str | None
    option: bool


def _setting(
    default: Any,
    section: str,
    text: str,
    *,
    unset: str = "none",
    example: str | int | None = None,
    metavar: str | None = None,
    option: bool = True,
) -> Any:
    """A field of :class:`Config` with its :class:`Setting`."""
    setting = Setting(section=section, text=text, unset=unset, example=example, metavar=metavar, option=option)
    return field(default=default, metadata={"setting": setting})


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The settings of a run. Quantities are text with a unit, such as ``"5ms"``; the methods return numbers.

    Each field has its meaning, default and example (:func:`settings`); the options of the command line, the
    file of ``nas init`` and docs/settings.md have their texts from here. The numbers of epochs apply without ``time``;
    with it, the time decides.
    """

    data: str = _setting(
        "digits", TASK, "digits, a folder of images, a zip or tar of one, an .npz file, or torchvision:NAME"
    )
    device: str = _setting(_DEFAULT_DEVICE, TASK, "name (see `nas devices`) or .toml file of the target device")
    latency: str | None = _setting(
        None,
        TASK,
        "limit on the time of one image, such as 5ms or 250us",
        unset="no limit",
        metavar="TIME",
        example="5ms",
    )
    ram: str | None = _setting(
        None,
        TASK,
        "limit on the memory of the activations, such as 256kB",
        unset="that of a microcontroller, or no limit",
        metavar="SIZE",
        example="256kB",
    )
    flash: str | None = _setting(
        None,
        TASK,
        "limit on the bytes of the weights, such as 1MB",
        unset="that of a microcontroller, or no limit",
        metavar="SIZE",
        example="1MB",
    )
    energy: str | None = _setting(
        None,
        TASK,
        "limit on the energy of one image, such as 2mJ, for devices with known power",
        unset="no limit",
        metavar="ENERGY",
        example="2mJ",
    )
    max_accuracy_drop: float = _setting(
        1.0, TASK, "percentage points of accuracy that all compression stages together may lose", metavar="POINTS"
    )
    size: int | None = _setting(
        None,
        TASK,
        "side in pixels to which images are resized",
        unset="their own size, or the median size but at most 160",
        option=False,
        example=64,
    )
    unreadable: str = _setting(
        "refuse", TASK, "what to do with images that cannot be read: refuse or skip", option=False
    )
    latency_from: str = _setting(
        "auto",
        TASK,
        "measured, estimated, or auto: candidates are estimated if the device file was measured on this "
        "machine, finalists and files are measured",
        option=False,
    )
    time: str | None = _setting(
        None,
        PLACE,
        "time for the whole run, such as 30min",
        unset=f"{DEFAULT_TIME}, or no limit if trials is given",
        metavar="TIME",
        example="30min",
    )
    trials: int | None = _setting(
        None,
        PLACE,
        "number of candidates to train; without time the result does not depend on the clock",
        unset="as many as the time allows",
        metavar="N",
        example=50,
    )
    out: str = _setting("runs/run", PLACE, "run folder; rerun the same command to resume", metavar="FOLDER")
    seed: int = _setting(0, PLACE, "seed of splits, search and training", metavar="N")
    workers: int | None = _setting(
        None,
        PLACE,
        "candidates trained at the same time, each in its own process",
        unset="with time, the number that is fastest on this machine; with ray, the number of CPU cores; otherwise 1",
        metavar="N",
        example=2,
    )
    storage: str | None = _setting(
        None,
        PLACE,
        "study shared by several machines: FILE.db, FILE.journal, postgresql://..., mysql://... or "
        "grpc://HOST:PORT; needs trials",
        unset="a file in the run folder",
        example="search.journal",
    )
    study: str = _setting("search", PLACE, "name of the study in storage", metavar="NAME")
    artifacts: str | None = _setting(
        None,
        PLACE,
        "folder that all machines can read, through which the weights of init travel",
        metavar="FOLDER",
        example="/mnt/shared",
    )
    executor: str = _setting("processes", PLACE, "what trains the candidates: processes (on this machine) or ray")
    address: str | None = _setting(
        None, PLACE, "Ray cluster, such as auto or HOST:PORT", unset="start Ray on this machine", example="auto"
    )
    cpus: float = _setting(1.0, PLACE, "CPUs that Ray reserves for each candidate", metavar="N")
    gpus: float = _setting(0.0, PLACE, "GPUs that Ray reserves for each candidate", metavar="N")
    space: str = _setting(
        "mobilenet",
        SEARCH,
        "search space: a name (see `nas list`) or module:function; tiny by default for microcontrollers",
    )
    init: str | None = _setting(
        None,
        SEARCH,
        "pretrained weights to start from, in place of a space: auto, timm:NAME, or a file of timm's weights",
        example="auto",
    )
    sampler: str = _setting("surrogate", SEARCH, "how candidates are proposed: surrogate, tpe or random")
    warm_start: str | None = _setting(
        None,
        SEARCH,
        "folder of an earlier run with the same space; its best networks are tried first",
        metavar="FOLDER",
        example="runs/earlier",
    )
    baseline: str = _setting(
        "auto",
        SEARCH,
        "preset trained as long as the winner, for comparison; none; or auto, which is none with time and "
        "resnet8 otherwise",
    )
    teacher: str = _setting(
        "auto",
        TRAINING,
        "network to distil from: timm:NAME (trained on your images first), an ONNX file, none, or auto, "
        "a small timm network if there is time to train it",
    )
    learning_rate: float = _setting(0.1, TRAINING, "highest learning rate, for batches of 128", option=False)
    search_epochs: float = _setting(2.0, TRAINING, "epochs of each candidate", option=False)
    teacher_epochs: float = _setting(10.0, TRAINING, "epochs of the teacher", option=False)
    train_epochs: float = _setting(20.0, TRAINING, "epochs of the winner", option=False)
    distill_epochs: float = _setting(10.0, TRAINING, "epochs of the distillation", option=False)
    prune_epochs: float = _setting(5.0, TRAINING, "epochs after pruning", option=False)
    prune_amount: float = _setting(0.2, TRAINING, "share of the channels to remove", option=False)
    prune_steps: int = _setting(2, TRAINING, "number of pruning steps", option=False)
    prune_criterion: str = _setting(
        "taylor", TRAINING, "importance of a channel: taylor, l1, l2, bn_scale or fpgm", option=False
    )
    stages: str = _setting(
        "auto",
        TRAINING,
        "compression steps in order, separated by commas; auto is int8 with time, otherwise "
        "distillation if there is a teacher, pruning and int8",
        option=False,
    )
    stage_epochs: float = _setting(5.0, TRAINING, "epochs of every other step that trains", option=False)

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


def settings() -> dict[str, Setting]:
    """The settings of a run by name, in the order in which they are shown.

    >>> settings()["latency"].unset
    'no limit'
    """
    return {each.name: each.metadata["setting"] for each in fields(Config)}


def default_text(name: str) -> str:
    """What holds where a setting is not given.

    >>> default_text("max_accuracy_drop"), default_text("latency")
    ('1', 'no limit')
    """
    value = getattr(_DEFAULTS, name)
    return settings()[name].unset if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def type_of(name: str) -> type[str] | type[int] | type[float]:
    """The type of a setting that is given.

    >>> type_of("trials")
    <class 'int'>
    """
    kind = str(next(each.type for each in fields(Config) if each.name == name))
    return _TYPES[kind.partition(" ")[0]]


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
    known = list(settings())
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
    for each in fields(config):
        value = getattr(config, each.name)
        if value is not None or not str(each.type).endswith("| None"):
            object.__setattr__(config, each.name, _typed(each.name, value, str(each.type)))


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
    wanted = _TYPES[kind.partition(" ")[0]]
    if isinstance(value, Path) and wanted is str:
        return str(value)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise InputError(f"{name} must be of type {kind.split(' |', maxsplit=1)[0]}, got {value!r}")
    return value


_DEFAULTS = Config()
