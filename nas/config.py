"""The Config of a run, made from TOML, command-line options or keyword arguments and checked."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from compress.argument_checks import LARGEST_SEED
from hw_profiles.budget import Budget
from hw_profiles.devices.c99_program import runs_c99
from hw_profiles.devices.device_file import load_device
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import check_known

_LARGEST = 10**300  # integers of a file have any number of digits
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
_OF_IMAGES = ("data", "seed", "size", "unreadable")
_EPOCHS = ("search_epochs", "teacher_epochs", "train_epochs", "distill_epochs", "prune_epochs", "stage_epochs")
_CHECKS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("trials", lambda n: n >= 1, "at least 1"),
    ("executor", lambda name: name in EXECUTORS, f"one of {', '.join(EXECUTORS)}"),
    ("cpus", lambda n: 0 <= n < math.inf, "at least 0"),
    ("gpus", lambda n: 0 <= n < math.inf, "at least 0"),
    ("workers", lambda n: n >= 1, "at least 1"),
    ("size", lambda n: n >= 8, "at least 8 pixels"),
    ("seed", lambda n: 0 <= n <= LARGEST_SEED, f"between 0 and {LARGEST_SEED}"),
    ("max_accuracy_drop", lambda x: 0 <= x <= 100, "between 0 and 100 (percentage points)"),
    ("prune_amount", lambda x: 0 < x < 1, "between 0 and 1"),
    ("prune_steps", lambda n: n >= 1, "at least 1"),
    ("unreadable", lambda name: name in UNREADABLE, f"one of {', '.join(UNREADABLE)}"),
    ("latency_from", lambda name: name in LATENCIES, f"one of {', '.join(LATENCIES)}"),
    *((name, lambda x: 0 < x < math.inf, "above 0") for name in (*_EPOCHS, "learning_rate")),
)


TASK, RUN, SEARCH, TRAINING = "Task and limits", "Run and execution", "Search", "Training and compression"


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
        "digits",
        TASK,
        "dataset: digits (built-in demo), a folder with one subfolder of images per class, a zip or tar archive of "
        "one, a Hugging Face dataset saved with save_to_disk, an .npz file, or torchvision:NAME",
    )
    device: str = _setting(_DEFAULT_DEVICE, TASK, "target device: a name (see `nas devices`) or a .toml file")
    latency: str | None = _setting(
        None,
        TASK,
        "maximum latency per image, e.g. 5ms or 250us",
        unset="no limit",
        metavar="TIME",
        example="5ms",
    )
    ram: str | None = _setting(
        None,
        TASK,
        "maximum peak activation memory, e.g. 256kB",
        unset="the RAM of the device if it is a microcontroller, otherwise no limit",
        metavar="SIZE",
        example="256kB",
    )
    flash: str | None = _setting(
        None,
        TASK,
        "maximum size of the weights, e.g. 1MB",
        unset="the flash of the device if it is a microcontroller, otherwise no limit",
        metavar="SIZE",
        example="1MB",
    )
    energy: str | None = _setting(
        None,
        TASK,
        "maximum energy per inference, e.g. 2mJ; only for devices with known power consumption",
        unset="no limit",
        metavar="ENERGY",
        example="2mJ",
    )
    max_accuracy_drop: float = _setting(
        1.0, TASK, "maximum total accuracy drop over all compression steps, in percentage points", metavar="POINTS"
    )
    size: int | None = _setting(
        None,
        TASK,
        "image size (side length in pixels) after resizing",
        unset="original size if all images have the same size, otherwise the median size, at most 160",
        option=False,
        example=64,
    )
    unreadable: str = _setting(
        "refuse", TASK, "how to handle unreadable images: refuse (stop with an error) or skip", option=False
    )
    latency_from: str = _setting(
        "auto",
        TASK,
        "source of latencies: measured, estimated, or auto (estimate candidates if the device file was measured on "
        "this machine; always measure finalists and final models)",
        option=False,
    )
    time: str | None = _setting(
        None,
        RUN,
        "time limit for the whole run, e.g. 30min",
        unset=f"{DEFAULT_TIME}, or no limit if --trials is given",
        metavar="TIME",
        example="30min",
    )
    trials: int | None = _setting(
        None,
        RUN,
        "number of candidates to train; without --time, results do not depend on the speed of the machine",
        unset="as many as time allows",
        metavar="N",
        example=50,
    )
    out: str = _setting("runs/run", RUN, "run folder; rerun the same command to resume", metavar="FOLDER")
    seed: int = _setting(0, RUN, "random seed for splits, search and training", metavar="N")
    workers: int | None = _setting(
        None,
        RUN,
        "number of candidates trained in parallel, each in its own process",
        unset="with --time, chosen for the highest throughput on this machine; with --executor ray, the number of CPU "
        "cores; otherwise 1",
        metavar="N",
        example=2,
    )
    storage: str | None = _setting(
        None,
        RUN,
        "Optuna storage for a study shared by several machines: FILE.db, FILE.journal, postgresql://..., mysql://... "
        "or grpc://HOST:PORT; requires --trials",
        unset="a file in the run folder",
        example="search.journal",
    )
    study: str = _setting("search", RUN, "study name in the storage", metavar="NAME")
    artifacts: str | None = _setting(
        None,
        RUN,
        "shared folder used to distribute pretrained weights (--init) to the workers",
        metavar="FOLDER",
        example="/mnt/shared",
    )
    executor: str = _setting("processes", RUN, "backend that trains the candidates: processes (local) or ray")
    address: str | None = _setting(
        None, RUN, "address of the Ray cluster: auto or HOST:PORT", unset="start Ray on this machine", example="auto"
    )
    cpus: float = _setting(1.0, RUN, "CPUs that Ray reserves for each candidate", metavar="N")
    gpus: float = _setting(0.0, RUN, "GPUs that Ray reserves for each candidate", metavar="N")
    space: str = _setting(
        "mobilenet",
        SEARCH,
        "search space: a name (see `nas list`) or module:function; tiny by default for microcontrollers",
    )
    init: str | None = _setting(
        None,
        SEARCH,
        "search sub-networks of a pretrained model instead of --space: auto, timm:NAME, or a timm checkpoint file",
        example="auto",
    )
    sampler: str = _setting(
        "surrogate",
        SEARCH,
        "sampler that proposes candidates: surrogate (Gaussian-process Bayesian optimization), tpe or random",
    )
    warm_start: str | None = _setting(
        None,
        SEARCH,
        "run folder of an earlier search in the same space; its best networks are evaluated first",
        metavar="FOLDER",
        example="runs/earlier",
    )
    baseline: str = _setting(
        "auto",
        SEARCH,
        "preset architecture (see `nas list`) to train for as long as the selected network, for comparison; none; or "
        "auto (none with --time, otherwise resnet8)",
    )
    teacher: str = _setting(
        "auto",
        TRAINING,
        "teacher for knowledge distillation: timm:NAME (trained on your images first), an ONNX file, none, or auto "
        "(a small timm model if there is time to train it)",
    )
    learning_rate: float = _setting(0.1, TRAINING, "peak learning rate at batch size 128", option=False)
    search_epochs: float = _setting(2.0, TRAINING, "training epochs per candidate", option=False)
    teacher_epochs: float = _setting(10.0, TRAINING, "training epochs of the teacher", option=False)
    train_epochs: float = _setting(20.0, TRAINING, "training epochs of the selected network", option=False)
    distill_epochs: float = _setting(10.0, TRAINING, "distillation epochs", option=False)
    prune_epochs: float = _setting(5.0, TRAINING, "fine-tuning epochs after pruning", option=False)
    prune_amount: float = _setting(0.2, TRAINING, "fraction of the channels to prune", option=False)
    prune_steps: int = _setting(2, TRAINING, "number of pruning steps", option=False)
    prune_criterion: str = _setting(
        "taylor", TRAINING, "channel importance criterion: taylor, l1, l2, bn_scale or fpgm", option=False
    )
    stages: str = _setting(
        "auto",
        TRAINING,
        "comma-separated list of compression steps, in order; auto means int8 with --time, otherwise "
        "distillation (if there is a teacher), pruning and int8",
        option=False,
    )
    stage_epochs: float = _setting(
        5.0, TRAINING, "fine-tuning epochs of every other compression step that involves training", option=False
    )

    def __post_init__(self) -> None:
        check_types(self)
        for name in _QUANTITIES:
            self._number(name)
        if self.storage is not None and self.trials is None:
            raise InputError("storage requires trials: workers must know when the study is complete")
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
        """Names of the entries in which two configs differ, but for where the work is done and a slash at the end."""
        mine, theirs = self._without_password(), other._without_password()
        compared = [name for name in mine if name not in _WHERE]
        return [name for name in compared if _without_slash(mine[name]) != _without_slash(theirs[name])]

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
    match = re.fullmatch(r"\s*(-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([A-Za-z]+)\s*", str(text))
    if match is None or match[2] not in units:
        raise InputError(f"{name} must be a number with a unit ({', '.join(units)}), got {str(text)!r}")
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
    given = {} if path is None else read_toml(Path(path))
    given |= {name: value for name, value in (overrides or {}).items() if value is not None}
    if given.get("time") is None and given.get("trials") is None:
        given["time"] = DEFAULT_TIME
    known = list(settings())
    for name in given:
        check_known("unknown setting", name, known)
    config = Config(**given)
    if given.get("space") is None and runs_c99(load_device(config.device)):
        return replace(config, space=SPACE_OF_MICROCONTROLLERS)
    return config


def config_of_folder(folder: Path) -> Config | None:
    """The config of the run whose folder it is; of a compression, how it read its images. None where none is kept.

    Raises:
        InputError: as :func:`load_config`.
    """
    path = folder / "config.toml"
    if not path.is_file():
        return None
    entries = read_toml(path)
    if "model" not in entries:
        return load_config(path)
    return Config(**{name: entries[name] for name in _OF_IMAGES if name in entries})


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
    except (ValueError, RecursionError):
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


def read_toml(path: Path) -> dict[str, Any]:
    """The entries of a TOML file; an InputError where there is none or it is something else."""
    if path.is_dir():
        raise InputError(f"config {path}: must be a TOML file, but it is a folder; images are given by --data")
    if not path.is_file():
        raise InputError(f"config file not found: {path}")
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also what is no UTF-8, or a number of too many digits
        raise InputError(f"config {path}: {error}") from None


def _without_slash(value: Any) -> Any:
    return value.rstrip("/") if isinstance(value, str) else value


def _typed(name: str, value: Any, kind: str) -> Any:
    if kind.startswith("float") and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if isinstance(value, float) or abs(value) < _LARGEST else math.inf
    wanted = _TYPES[kind.partition(" ")[0]]
    value = str(value) if isinstance(value, Path) and wanted is str else value
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise InputError(f"{name} must be of type {kind.split(' |', maxsplit=1)[0]}, got {value!r}")
    if isinstance(value, str) and value.encode(errors="replace").decode() != value:
        raise InputError(f"{name} must be text that UTF-8 can hold, got {value!r}")
    return value


_DEFAULTS = Config()
