"""A timm model as data: its name, arguments, and the channels that pruning kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.atomic_files import write_text
from compress.networks.network_interface import Network
from compress.networks.slice_channels import REMOVED, cut_module, of_original
from compress.training.random_generators import seeded
from hw_profiles.errors import InputError, short_reason
from hw_profiles.network.workload import Workload
from hw_profiles.torch_io.timm_models import check_timm_name
from hw_profiles.torch_io.trace import trace

TIMM_SCHEMA = 1
Plain = int | float | str | bool | tuple[int, ...]

# What would read files or the network, or make something else than the classifier.
_FORBIDDEN = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable",
    "exportable", "no_jit", "features_only", "device", "dtype",
)  # fmt: skip
_LARGEST_NUMBER = 2048  # so many blocks are made in seconds
_LARGEST_SIZE = 65_536
_SIZES = ("num_classes", "img_size")
_LONGEST_TEXT = 100
_MOST_ENTRIES = 10_000
_LARGEST_BYTES = 2 * 1024**3


@dataclass(frozen=True, kw_only=True, slots=True)
class Timm(Network):
    """``timm.create_model(name, **kwargs)`` for images (channels, height, width), without weights.

    ``kwargs`` are numbers, texts and truth values, or pairs of numbers. ``kept`` names for each pruned layer the
    channels that stayed, ascending, and the blocks that did not, as
    :func:`compress.networks.slice_channels.cut_module` reads it.

    Raises:
        InputError: timm has no such model, an argument that is not plain or not allowed, or one too large.

    >>> source = Timm(name="resnet18", input_shape=(3, 64, 64), kwargs={"num_classes": 10})
    >>> Timm.from_json(source.to_json()) == source, round(source.workload().macs / 1e6)
    (True, 148)
    """

    name: str
    input_shape: tuple[int, int, int] = field()
    kwargs: Mapping[str, Plain] = field(default_factory=dict)
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_timm_name(self.name)
        if len(self.input_shape) != 3 or not all(1 <= side <= _LARGEST_SIZE for side in self.input_shape):
            raise InputError(f"Timm.input_shape must be three sides (channels, height, width), got {self.input_shape}")
        for name, value in self.kwargs.items():
            _check_argument(name, value)
        for name, channels in self.kept.items():
            if name.endswith(REMOVED) and not channels:
                continue
            if not channels or list(channels) != sorted(set(channels)) or channels[0] < 0:
                raise InputError(f"Timm.kept: {name[:_LONGEST_TEXT]!r} must be ascending channels, at least one")
        object.__setattr__(self, "kept", {name: tuple(channels) for name, channels in self.kept.items()})

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def build(self) -> nn.Module:
        """The module with random weights that do not depend on anything; an InputError where it cannot be made."""
        _check_bytes(self._create("meta"), self.name)
        with seeded(0):
            made = self._create("cpu")
        return cut_module(made, self.kept)

    @property
    def label(self) -> str:
        """``timm:NAME``."""
        return f"timm:{self.name}"

    def workload(self) -> Workload:
        """Its operations, batch normalization folded."""
        return _workload(self.to_json())

    def resized(self, sides: tuple[int, int, int] | Mapping[str, tuple[int, ...]]) -> Timm | None:
        """The model for images of this size."""
        return None if isinstance(sides, Mapping) else replace(self, input_shape=sides)

    def cut(self, module: nn.Module, kept: Mapping[str, Sequence[int]]) -> Timm:
        """The model that remembers these channels by their first numbers.

        >>> source = Timm(name="resnet18", input_shape=(3, 32, 32), kept={"conv1": (3, 5, 8)})
        >>> source.cut(source.build(), {"conv1": [0, 2]}).kept
        {'conv1': (3, 8)}
        """
        removed = tuple(f"{key.removesuffix(REMOVED)}." for key in kept if key.endswith(REMOVED))
        before = {key: numbers for key, numbers in self.kept.items() if not key.startswith(removed)}
        return replace(self, kept={**before, **of_original(before, kept)})

    def write(self, folder: Path) -> str:
        """Write source.json."""
        write_text(folder / "source.json", self.to_json())
        return "timm"

    def to_dict(self) -> dict[str, Any]:
        """JSON types, with the schema version."""
        return {"schema": TIMM_SCHEMA, "kind": "timm", **asdict(self)}

    def to_json(self) -> str:
        """The inverse of :meth:`from_json`."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Timm:
        """Parse what :meth:`to_json` wrote; an InputError names what is wrong."""
        try:
            data = json.loads(text)
            if (data["kind"], data["schema"]) != ("timm", TIMM_SCHEMA):
                raise InputError(f"Timm: schema must be {TIMM_SCHEMA}, got {data['schema']!r}")
            channels, height, width = map(_whole, data["input_shape"])
            return cls(
                name=str(data["name"])[:_LONGEST_TEXT],
                input_shape=(channels, height, width),
                kwargs={name: tuple(v) if isinstance(v, list) else v for name, v in data["kwargs"].items()},
                kept=_kept(data["kept"]),
            )
        except InputError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"Timm: not the JSON of a model of timm ({type(error).__name__})") from None

    def _create(self, device: str) -> nn.Module:
        import timm

        options: dict[str, Any] = dict(self.kwargs)
        try:
            with torch.device(device):
                made: nn.Module = timm.create_model(self.name, pretrained=False, **options)
        except Exception as error:  # timm raises whatever its constructors meet
            reason = short_reason(error)
            raise InputError(f"timm:{self.name} cannot be made with {dict(self.kwargs)} ({reason})") from None
        return made


def timm_for(name: str, input_shape: tuple[int, int, int], num_classes: int | None = None) -> Timm:
    """The source for such images and classes. Models that fix their image size when they are made are told it.

    Raises:
        InputError: timm has no such model, or cannot make it for such images.

    >>> timm_for("resnet18", (1, 32, 32), 10).kwargs
    {'num_classes': 10, 'in_chans': 1}
    """
    kwargs: dict[str, Plain] = {} if num_classes is None else {"num_classes": num_classes}
    kwargs["in_chans"] = input_shape[0]
    height, width = input_shape[1:]
    sized = Timm(name=name, input_shape=input_shape, kwargs={**kwargs, "img_size": (height, width)})
    try:
        sized._create("meta")
    except ValueError:  # most do not know the argument
        return Timm(name=name, input_shape=input_shape, kwargs=kwargs)
    return sized


def timm_of(module: nn.Module, input_shape: tuple[int, int, int]) -> Timm | None:
    """The source of a module that timm made, if the module still says where it comes from; None for any other."""
    cfg: Any = getattr(module, "pretrained_cfg", None)
    name = cfg.get("architecture") if hasattr(cfg, "get") else None
    if not isinstance(name, str):
        return None
    kwargs = dict(getattr(module, "_model_args", {}))
    for argument, attribute in (("num_classes", "num_classes"), ("in_chans", "in_chans")):
        value = getattr(module, attribute, None)
        if isinstance(value, int):
            kwargs.setdefault(argument, value)
    try:
        return Timm(name=name, input_shape=input_shape, kwargs=kwargs)
    except ValueError:
        return None


def trained_shape(module: nn.Module) -> tuple[int, int, int] | None:
    """(C, H, W) that timm says a module of its own was trained with; None for any other."""
    cfg: Any = getattr(module, "pretrained_cfg", None)
    size = cfg.get("input_size") if hasattr(cfg, "get") else None
    return (int(size[0]), int(size[1]), int(size[2])) if isinstance(size, list | tuple) and len(size) == 3 else None


@lru_cache(maxsize=8)
def _workload(text: str) -> Workload:
    source = Timm.from_json(text)
    module = source._create("meta")
    _check_bytes(module, source.name)
    return trace(source.build() if source.kept else module, source.input_shape)


def _check_argument(name: str, value: object) -> None:
    if name in _FORBIDDEN or not name.isidentifier():
        raise InputError(f"Timm.kwargs: {name[:_LONGEST_TEXT]!r} must not be given")
    largest = _LARGEST_SIZE if name in _SIZES else _LARGEST_NUMBER
    for part in value if isinstance(value, tuple) and len(value) == 2 else (value,):
        plain = isinstance(part, str) and len(part) <= _LONGEST_TEXT
        if not plain and not (isinstance(part, int | float) and abs(part) <= largest):
            raise InputError(
                f"Timm.kwargs: {name} must be a str, a bool, a number of at most {largest} "
                f"or a pair of these, got {str(value)[:_LONGEST_TEXT]}"
            )


def _check_bytes(module: nn.Module, name: str) -> None:
    size = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    if size > _LARGEST_BYTES:
        raise InputError(f"timm:{name}: must have at most {_LARGEST_BYTES} bytes of weights, got {size}")


def _kept(data: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    if len(data) > _MOST_ENTRIES:
        raise InputError(f"Timm.kept: at most {_MOST_ENTRIES} layers, got {len(data)}")
    return {name: tuple(map(_whole, channels)) for name, channels in data.items()}


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value
