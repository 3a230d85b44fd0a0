"""Devices as frozen data, one TOML file each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_profiles.formats import PRECISIONS
from hw_profiles.names import did_you_mean

SCHEMA = 1
_FOLDER = Path(__file__).parent / "devices"


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelCost:
    """Microseconds of one kind of kernel: a constant, for each million MACs, for each megabyte read and written."""

    overhead_us: float
    us_per_mmac: float
    us_per_mbyte: float

    def __post_init__(self) -> None:
        for name in ("overhead_us", "us_per_mmac", "us_per_mbyte"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise ValueError(f"{name} must be a number of at least 0, got {value!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """Facts about a machine. ``kernels[precision][kind]`` is what a kernel costs; ``interval_factor`` how far off the
    estimate may be either way at 90 %; ``measurable`` whether this process runs on it; ``source`` who says so.
    """

    name: str
    description: str
    runtime: str
    threads: int
    channel_multiple: int
    measurable: bool
    interval_factor: float
    source: str
    kernels: Mapping[str, Mapping[str, KernelCost]]

    def cost(self, precision: str, kind: str) -> KernelCost:
        """What a kernel costs; a ValueError names a kind that the device's table does not have."""
        try:
            return self.kernels[precision][kind]
        except KeyError:
            raise ValueError(f"device {self.name} has no cost for {kind!r} kernels in {precision}") from None


def list_devices() -> list[str]:
    """Names for :func:`load_device`.

    >>> list_devices()
    ['host']
    """
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_device(name: str | Path) -> Device:
    """A device of ours by name, or a TOML file of the same form.

    Raises:
        ValueError: no such device, or a file with a missing, unknown or impossible entry, which is named.

    >>> load_device("host").measurable
    True
    """
    path = _FOLDER / f"{name}.toml" if name in list_devices() else Path(name)
    if path.suffix != ".toml" or not path.is_file():
        hint = did_you_mean(str(name), list_devices())
        raise ValueError(
            f"no device is called {str(name)!r}{hint} (valid: {', '.join(list_devices())}, or a .toml file)"
        )
    try:
        return _parse(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"device file {path}: {error}") from None


_FIELDS: dict[str, type] = {
    "schema": int,
    "name": str,
    "description": str,
    "runtime": str,
    "threads": int,
    "channel_multiple": int,
    "measurable": bool,
    "interval_factor": float,
    "source": str,
    "kernels": dict,
}


def _parse(data: dict[str, Any]) -> Device:
    for name, kind in _FIELDS.items():
        if name not in data:
            raise ValueError(f"{name} is missing")
        if not isinstance(data[name], kind):
            raise ValueError(f"{name} must be of type {kind.__name__}, got {data[name]!r}")
    unknown = sorted(set(data) - set(_FIELDS))
    if unknown:
        raise ValueError(f"unknown entry {unknown[0]!r} (valid: {', '.join(_FIELDS)})")
    if data["schema"] != SCHEMA:
        raise ValueError(f"schema must be {SCHEMA}, got {data['schema']}")
    if data["threads"] < 1 or data["channel_multiple"] < 1 or data["interval_factor"] < 1:
        raise ValueError("threads, channel_multiple and interval_factor must be at least 1")
    kernels = {}
    for precision, table in data["kernels"].items():
        if precision not in PRECISIONS:
            raise ValueError(f"kernels: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        kernels[precision] = {kind: _kernel_cost(f"kernels.{precision}.{kind}", row) for kind, row in table.items()}
    return Device(kernels=kernels, **{name: data[name] for name in _FIELDS if name not in ("schema", "kernels")})


def _kernel_cost(place: str, row: Any) -> KernelCost:
    try:
        return KernelCost(**row)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from None
