"""A table of measured latencies, and the device file that follows from it and a similar device."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hw_profiles import Device
from hw_profiles.calibration import calibration_report
from hw_profiles.device_kit.kit_results import CalibratedDevice
from hw_profiles.network.tensor_formats import PRECISIONS
from hw_profiles.profiling import Model
from hw_profiles.spelling_suggestions import check_one_of
from nas.commands.profile_facts import find_model
from nas.errors import InputError

_MOST_BYTES = 10_000_000
_MOST_ROWS = 10_000
_COLUMNS = ("model", "latency_ms", "precision")


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredLatency:
    """One row: a name as ``nas profile`` takes it, and milliseconds, NaN where they are no number."""

    model: str
    latency_ms: float
    precision: str


def read_latencies(path: Path) -> list[MeasuredLatency]:
    """The rows of a CSV file with the columns ``model``, ``latency_ms`` and perhaps ``precision`` (else fp32).

    Raises:
        InputError: no such file, one that is too large, a column that is missing, a precision that is none.
    """
    if not path.is_file():
        raise InputError(f"--from: file not found: {path}")
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: must be of at most {_MOST_BYTES} bytes")
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig")))
        rows = [{key: value or "" for key, value in row.items() if isinstance(key, str)} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: must be a CSV file in UTF-8, got {error}") from None
    head = reader.fieldnames or []
    if missing := [name for name in _COLUMNS[:2] if name not in head]:
        raise InputError(
            f"{path}: column {missing[0]!r} is missing (needed: {', '.join(_COLUMNS[:2])}; got: {head!r:.100})"
        )
    if not 0 < len(rows) <= _MOST_ROWS:
        raise InputError(f"{path}: must have 1 to {_MOST_ROWS} rows, got {len(rows)}")
    return [_row(path, number, row) for number, row in enumerate(rows, start=2)]


def _row(path: Path, number: int, row: dict[str, str]) -> MeasuredLatency:
    precision = row.get("precision", "").strip() or "fp32"
    check_one_of(f"{path}, line {number}: precision", precision, PRECISIONS)
    try:
        ms = float(row["latency_ms"])
    except ValueError:
        ms = float("nan")
    return MeasuredLatency(model=row["model"].strip(), latency_ms=ms, precision=precision)


def calibrated(
    base: Device, rows: Sequence[MeasuredLatency], input_shape: tuple[int, ...] | None, name: str
) -> CalibratedDevice:
    """The base corrected by the rows, each precision by its own; a precision without rows keeps the base's costs.

    Raises:
        InputError: no usable row of a precision, or a model that cannot be read.
    """
    device, used, set_aside, errors = base, 0, list[str](), dict[str, float]()
    for precision in PRECISIONS:
        chosen = [row for row in rows if row.precision == precision]
        if not chosen:
            continue
        measured: list[tuple[Model, float]] = [(find_model(row.model, input_shape), row.latency_ms) for row in chosen]
        found = calibration_report(device, measured, precision, names=[row.model for row in chosen])
        device, used = found.device, used + found.used
        set_aside += found.set_aside
        if found.left_out_error is not None:
            errors[precision] = found.left_out_error
    described = replace(device, name=name, description=f"{base.name}, calibrated with {used} measurements")
    return CalibratedDevice(device=described, used=used, set_aside=tuple(set_aside), left_out_errors=errors)
