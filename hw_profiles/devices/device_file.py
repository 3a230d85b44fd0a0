"""Reads, checks and writes device files (TOML)."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hw_profiles.atomic_writes import write_bytes
from hw_profiles.cost_model.features import SCALES, family
from hw_profiles.cost_model.kernel_costs import KernelCost, quantity_names
from hw_profiles.devices.device import Device
from hw_profiles.devices.facts import FACTS, Fact, HeldOut
from hw_profiles.devices.machine import kind_of_machine
from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import PRECISIONS
from hw_profiles.runtimes.fusion import RUNTIMES
from hw_profiles.spelling_suggestions import check_known, check_one_of, did_you_mean
from hw_profiles.user_folders import calibrated_devices_folder

DEVICE_SCHEMA = 4
_FOLDER = Path(__file__).parent
_MOST_BYTES = 2_000_000
_LARGEST_COUNT = 1024
_MOST_POINTS, _MOST_KINDS = 1000, 1000  # every kind takes the memory of the one with the most points
_MOST_DOTS = 40  # in a line: the reader's time and memory grow as the square of the length of a dotted name
_CALL = "call/call"  # what no network is without
_LARGEST = 1e12
_LARGEST_FACT = 1e15
_LARGEST_SPREAD = 10.0
_ABOVE_ZERO = ("cores", "clock_mhz", "c99_cycles_per_instruction")  # facts that are divided by, or times
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def list_devices() -> list[str]:
    """Return the names of the built-in devices.

    >>> "host" in list_devices(), "raspberry-pi-4" in list_devices()
    (True, True)
    """
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_device(name: str | Path) -> Device:
    """Load a built-in device by name, or a device from a TOML file.

    If a built-in device was calibrated to this machine (see :func:`hw_profiles.device_kit.first_use.device_here`), the
    calibrated one is loaded.

    Raises:
        InputError: no such device, or a file with a missing, unknown or impossible entry, which is named.

    >>> load_device("host").measurable
    True
    """
    path = _own_file(str(name)) if name in list_devices() else Path(name)
    if path.suffix == ".toml" and not path.is_file():
        raise InputError(f"device file not found: {path}")
    if path.suffix != ".toml":
        hint = did_you_mean(str(name), list_devices())
        raise InputError(f"unknown device {str(name)!r}{hint} (valid: {', '.join(list_devices())}, or a .toml file)")
    try:
        return _parse(_read(path))
    except ValueError as error:
        raise InputError(f"device file {path}: {error}") from None


def shipped_device(name: str) -> Device:
    """A device of ours as it ships, whatever this machine is.

    >>> shipped_device("host").conditions["onnxruntime"]
    '1.32.0'
    """
    return load_device(_FOLDER / f"{name}.toml")


def kept_file(name: str) -> Path:
    """Where a device of ours that was calibrated to this machine is kept: a file for each kind of machine and each
    version of the device.
    """
    return calibrated_devices_folder() / f"{name}-{kind_of_machine((_FOLDER / f'{name}.toml').read_bytes())}.toml"


def _own_file(name: str) -> Path:
    kept = kept_file(name)
    return kept if kept.is_file() else _FOLDER / f"{name}.toml"


def save_device(path: Path, device: Device) -> None:
    """Write a device file, whole or not at all.

    Raises:
        InputError: the path does not end in .toml, or :func:`load_device` would refuse the file.
    """
    if path.suffix != ".toml":
        raise InputError(f"a device file must be a .toml file, got {str(path)!r}")
    try:
        data = to_toml(device).encode()
        _parse(tomllib.loads(data.decode()))
    except ValueError as error:
        raise InputError(f"device file {path} cannot be written: {error}") from None
    write_bytes(path, data)


def to_toml(device: Device) -> str:
    """The text of a device file: what :func:`load_device` reads."""
    lines = [f"schema = {DEVICE_SCHEMA}"]
    for name in ("name", "description", "runtime", "threads", "channel_multiple", "measurable", "source", "calibrated"):
        lines.append(f"{name} = {_text(getattr(device, name))}")
    if device.reference_ms is not None:
        lines.append(f"reference_ms = {device.reference_ms}")
    for name in ("conditions", "spread"):
        lines += ["", f"[{name}]"]
        lines += [f"{_key(key)} = {_text(value)}" for key, value in getattr(device, name).items()]
    lines += _fact_lines(device)
    for precision, table in device.costs.items():
        for kind, cost in table.items():
            lines += ["", f"[costs.{precision}.{_text(kind)}]", f"coefficients = {_coefficients(kind, cost)}"]
            if cost.doubt:
                lines.append(f"doubt = {cost.doubt:.3g}")
            if not SCALES[family(kind)]:
                continue
            lines.append("points = [")
            for point, weight in zip(cost.points, cost.weights, strict=True):
                lines.append(f"  [{', '.join(f'{value:.4g}' for value in point)}, {weight:.4g}],")
            lines.append("]")
    return "\n".join(lines) + "\n"


def _fact_lines(device: Device) -> list[str]:
    lines = []
    for name, fact in device.facts.items():
        entries: dict[str, object] = {"value": fact.value, "source": fact.source}
        if fact.low != fact.high:
            entries |= {"low": fact.low, "high": fact.high}
        if fact.note:
            entries["note"] = fact.note
        lines += ["", f"[facts.{name}]", *[f"{key} = {_text(value)}" for key, value in entries.items()]]
    for precision, held_out in device.held_out.items():
        lines += ["", f"[held_out.{precision}]"]
        lines += [f"{key} = {_text(value)}" for key, value in asdict(held_out).items()]
    return lines


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # which TOML wants escaped


def _coefficients(kind: str, cost: KernelCost) -> str:
    entries = (f"{name} = {value:.5g}" for name, value in zip(quantity_names(kind), cost.coefficients, strict=True))
    return f"{{ {', '.join(entries)} }}"


_FIELDS: dict[str, type] = {
    "schema": int,
    "name": str,
    "description": str,
    "runtime": str,
    "threads": int,
    "channel_multiple": int,
    "measurable": bool,
    "source": str,
    "calibrated": list,
    "conditions": dict,
    "spread": dict,
    "costs": dict,
}


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InputError(f"the file is too large, the limit is {_MOST_BYTES} bytes")
    text = data.decode("utf-8-sig")  # editors on Windows put a mark in front
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise InputError(f"a line must have at most {_MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise InputError("brackets are nested too deeply") from None


def _parse(data: dict[str, Any]) -> Device:
    data = _with_costs_of_another(_from_schema_3(data))
    _check_fields(data)
    for name, value in data["conditions"].items():
        if not isinstance(value, str):
            raise InputError(f"conditions.{name!r} must be of type str, got {value!r:.80}")
    costs = {
        precision: {kind: _cost(f"costs.{precision}.{kind!r:.80}", kind, row) for kind, row in table.items()}
        for precision, table in _tables(data).items()
    }
    if "reference_ms" in data and not _number("reference_ms", data["reference_ms"], _LARGEST):
        raise InputError("reference_ms must be more than 0")
    plain = {name: data[name] for name in data if name not in ("schema", "costs", "calibrated", "facts", "held_out")}
    return Device(
        costs=costs,
        calibrated=tuple(data["calibrated"]),
        facts={name: _fact(name, row) for name, row in _table("facts", data).items()},
        held_out={name: _held_out(name, row, costs) for name, row in _table("held_out", data).items()},
        **plain,
    )


def _table(entry: str, data: dict[str, Any]) -> dict[str, Any]:
    table = data.get(entry, {})
    if not isinstance(table, dict):
        raise InputError(f"{entry} must be a table, got {table!r:.80}")
    return table


def _fact(name: str, row: Any) -> Fact:
    check_known("facts: unknown entry", name, FACTS)
    _check_row(f"facts.{name}", row, {"value": FACTS[name], "source": str}, {"low": float, "high": float, "note": str})
    if name in _ABOVE_ZERO and not row["value"] > 0:
        raise InputError(f"facts.{name}.value must be more than 0, got {row['value']!r}")
    return Fact(**row)


def _held_out(precision: str, row: Any, costs: dict[str, Any]) -> HeldOut:
    check_one_of("held_out: precision", precision, costs)
    needed = {"networks": int, "families": int, "mean_error": float, "macs_error": float, "within_interval": float,
              "source": str}  # fmt: skip
    _check_row(f"held_out.{precision}", row, needed, {})
    return HeldOut(**row)


def _check_row(entry: str, row: Any, needed: dict[str, type], allowed: dict[str, type]) -> None:
    """That a table has what is needed and nothing but that and what is allowed, each of its type."""
    if not isinstance(row, dict):
        raise InputError(f"{entry} must be a table, got {row!r:.80}")
    if missing := sorted(set(needed) - set(row)):
        raise InputError(f"{entry}.{missing[0]} is missing")
    kinds = needed | allowed
    if unknown := sorted(set(row) - set(kinds)):
        raise InputError(f"{entry}: unknown entry {unknown[0]!r:.80} (valid: {', '.join(kinds)})")
    for key, value in row.items():
        if kinds[key] is str:
            if not isinstance(value, str) or not value.isprintable():
                raise InputError(f"{entry}.{key} must be printable text, got {value!r:.80}")
        else:
            _number(f"{entry}.{key}", value, _LARGEST_FACT)
            if kinds[key] is int and not isinstance(value, int):
                raise InputError(f"{entry}.{key} must be a whole number, got {value!r:.80}")


def _with_costs_of_another(data: dict[str, Any]) -> dict[str, Any]:
    """A file whose costs are the name of one of our devices, with the costs of that one; any other file as it is."""
    name = data.get("costs")
    if not isinstance(name, str):
        return data
    if name not in list_devices():
        raise InputError(f"costs must be a table or one of {', '.join(list_devices())}, got {name!r:.80}")
    costs = _read(_FOLDER / f"{name}.toml").get("costs")
    if isinstance(costs, str):
        raise InputError(f"costs must be of a device with costs of its own, got {name!r}")
    return {**data, "costs": costs}


def _from_schema_3(data: dict[str, Any]) -> dict[str, Any]:
    """A file as it was written before schema 4, with today's names; any other file as it is."""
    if data.get("schema") != 3 or not isinstance(data.get("costs"), dict):
        return data
    renamed = {"few": "nodes_past_20", "crowd": "nodes_past_60", "throng": "nodes_past_200"}

    def row(old: Any) -> Any:
        if not isinstance(old, dict) or not isinstance(old.get("prices"), dict) or "coefficients" in old:
            return old  # is refused for what is wrong with it
        coefficients = {renamed.get(name, name): value for name, value in old["prices"].items()}
        return {"coefficients": coefficients, **{name: value for name, value in old.items() if name != "prices"}}

    tables = {
        precision: {kind: row(old) for kind, old in table.items()} if isinstance(table, dict) else table
        for precision, table in data["costs"].items()
    }
    return {**data, "schema": DEVICE_SCHEMA, "costs": tables}


def _check_fields(data: dict[str, Any]) -> None:
    for name, kind in _FIELDS.items():
        if name not in data:
            raise InputError(f"{name} is missing")
        if type(data[name]) is not kind:
            raise InputError(f"{name} must be of type {kind.__name__}, got {data[name]!r:.80}")
        if kind is str and not data[name].isprintable():
            raise InputError(f"{name} must be printable, got {data[name]!r:.80}")
    valid = (*_FIELDS, "reference_ms", "facts", "held_out")
    for name in sorted(data):
        check_known("unknown entry", name, valid)
    if data["schema"] != DEVICE_SCHEMA:
        raise InputError(f"schema must be {DEVICE_SCHEMA}, got {data['schema']}")
    for name in ("threads", "channel_multiple"):
        if not 1 <= data[name] <= _LARGEST_COUNT:
            raise InputError(f"{name} must be at least 1 and at most {_LARGEST_COUNT}, got {data[name]!r:.80}")
    check_one_of("runtime", data["runtime"], RUNTIMES)
    if data["measurable"] and data["runtime"] != "ort":
        raise InputError(f"measurable must be false for runtime {data['runtime']}: only ort can be measured here")


def _tables(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The costs by precision, each with its spread and the cost of the call itself."""
    tables: dict[str, dict[str, Any]] = data["costs"]
    if not tables:
        raise InputError(f"costs must be given in one of {', '.join(PRECISIONS)}")
    for entry in ("costs", "spread", "calibrated"):
        for precision in data[entry]:
            check_one_of(f"{entry}: precision", precision, PRECISIONS if entry == "costs" else tables)
    for precision, table in tables.items():
        _number(f"spread.{precision}", data["spread"].get(precision), _LARGEST_SPREAD)
        if not isinstance(table, dict) or _CALL not in table:
            raise InputError(f"costs.{precision}.{_CALL!r} is missing")
        if len(table) > _MOST_KINDS:
            raise InputError(f"costs.{precision} must be of at most {_MOST_KINDS} kinds, got {len(table)}")
    return tables


def _cost(entry: str, kind: str, row: Any) -> KernelCost:
    if not isinstance(row, dict) or not isinstance(row.get("coefficients"), dict):
        raise InputError(f"{entry}: coefficients is missing")
    if unknown := sorted(set(row) - {"coefficients", "points", "doubt"}):
        raise InputError(f"{entry}: unknown entry {unknown[0]!r} (valid: coefficients, points, doubt)")
    names = quantity_names(kind)
    if wrong := sorted(set(row["coefficients"]) ^ set(names)):
        state = "missing" if wrong[0] in names else "unknown"
        raise InputError(f"{entry}.coefficients: {wrong[0]!r} is {state} (needed: {', '.join(names)})")
    coefficients = tuple(_number(f"{entry}.coefficients.{name}", row["coefficients"][name], _LARGEST) for name in names)
    if kind == _CALL and not coefficients[0]:
        raise InputError(f"{entry}.coefficients.{names[0]} must be more than 0")
    length = len(SCALES[family(kind)]) + 1
    points = row.get("points", [])
    if not isinstance(points, list) or len(points) > _MOST_POINTS:
        raise InputError(f"{entry}.points must be a list of at most {_MOST_POINTS}, got {points!r:.80}")
    for point in points:
        numbers = isinstance(point, list) and len(point) == length and all(_is_number(value) for value in point)
        if not numbers:
            raise InputError(f"{entry}.points: each must be {length} numbers, got {point!r:.80}")
    return KernelCost(
        coefficients=coefficients,
        points=tuple(tuple(p[:-1]) for p in points),
        weights=tuple(float(p[-1]) for p in points),
        doubt=_number(f"{entry}.doubt", row.get("doubt", 0.0), _LARGEST_SPREAD),
    )


def _number(entry: str, value: Any, largest: float) -> float:
    if value is None:
        raise InputError(f"{entry} is missing")
    if not _is_number(value) or not 0 <= value <= largest:
        raise InputError(f"{entry} must be a number from 0 to {largest:g}, got {value!r:.80}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST_FACT <= value <= _LARGEST_FACT
