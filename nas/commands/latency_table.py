"""A table of measured latencies, and the device file that follows from it and a similar device."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hw_profiles import Device
from hw_profiles.calibration import calibration_report
from hw_profiles.device_kit.kit_results import CalibratedDevice
from hw_profiles.devices.facts import FACTOR_OF_TWO
from hw_profiles.network.tensor_formats import PRECISIONS
from hw_profiles.profiling import Model
from hw_profiles.spelling_suggestions import check_one_of
from nas.commands.profile_facts import find_model
from nas.errors import InputError

_MOST_BYTES = 10_000_000
_MOST_ROWS = 10_000
_COLUMNS = ("model", "latency_ms", "precision")
_DELIMITERS = (",", ";", "\t")
_DECIMAL_COMMAS = " (decimal commas need semicolons between the columns)"


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredLatency:
    """One row: a name as ``nas profile`` takes it, and milliseconds, or the text that stands there where it is no
    number; ``place`` says in errors where the row is.
    """

    model: str
    latency_ms: float | str
    precision: str
    place: str


def read_latencies(path: Path) -> list[MeasuredLatency]:
    """The rows of a CSV file with the columns ``model``, ``latency_ms`` and perhaps ``precision`` (else fp32), among
    others. Commas, semicolons or tabs part the columns; where it is not commas, numbers may have a decimal comma.

    Raises:
        InputError: no such file, one that is too large, a column that is missing, a row with more values than the
            header has columns or without a model, a precision that is none.
    """
    if not path.is_file():
        raise InputError(f"--from: file not found: {path}")
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: must be of at most {_MOST_BYTES} bytes")
    try:
        return _rows(path, data.decode("utf-8-sig"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: must be a CSV file in UTF-8, got {error}") from None


def _rows(path: Path, text: str) -> list[MeasuredLatency]:
    lines = io.StringIO(text, newline=None)
    delimiter = max(_DELIMITERS, key=lines.readline().count)
    lines.seek(0)
    reader = csv.reader(lines, delimiter=delimiter)
    head = next(reader, [])
    names = [name.strip().casefold() for name in head]
    if missing := [name for name in _COLUMNS[:2] if name not in names]:
        raise InputError(
            f"{path}: column {missing[0]!r} is missing (needed: {', '.join(_COLUMNS[:2])}; got: {head!r:.100})"
        )
    rows = [
        _row(f"{path}, line {reader.line_num}", names, values, delimiter)
        for values in reader
        if any(map(str.strip, values))
    ]
    if not 0 < len(rows) <= _MOST_ROWS:
        raise InputError(f"{path}: must have 1 to {_MOST_ROWS} rows, got {len(rows)}")
    return rows


def _row(place: str, names: Sequence[str], values: Sequence[str], delimiter: str) -> MeasuredLatency:
    if any(map(str.strip, values[len(names) :])):
        raise InputError(
            f"{place}: must have at most {len(names)} values, as the first line has, got "
            f"{delimiter.join(values)!r:.80}{_DECIMAL_COMMAS if delimiter == ',' else ''}"
        )
    row = dict(zip(names, map(str.strip, values), strict=False))
    if not row.get("model"):
        raise InputError(f"{place}: the model is missing")
    precision = row.get("precision", "").casefold() or "fp32"
    check_one_of(f"{place}: precision", precision, PRECISIONS)
    return MeasuredLatency(
        model=row["model"],
        latency_ms=_milliseconds(row.get("latency_ms", ""), decimal_commas=delimiter != ","),
        precision=precision,
        place=place,
    )


def _milliseconds(text: str, *, decimal_commas: bool) -> float | str:
    """
    >>> [_milliseconds("0,9", decimal_commas=each) for each in (True, False)]
    [0.9, '0,9']
    """
    try:
        return float(text.replace(",", ".") if decimal_commas else text)
    except ValueError:
        return text


def calibrated(
    base: Device, rows: Sequence[MeasuredLatency], input_shape: tuple[int, ...] | None, name: str
) -> CalibratedDevice:
    """The base corrected by the rows, each precision by its own. A precision without rows keeps the base's costs, with
    an interval of at least a factor of two either way. A table does not say which machine it is of, so the device is
    never taken for this one.

    Raises:
        InputError: no usable row of a precision, or a model that cannot be read.
    """
    device, used, set_aside, errors = base, 0, list[str](), dict[str, float]()
    spread = {precision: max(value, FACTOR_OF_TWO) for precision, value in base.spread.items()}
    for precision in PRECISIONS:
        chosen = [row for row in rows if row.precision == precision]
        if not chosen:
            continue
        measured: list[tuple[Model, Any]] = [(_model(row, input_shape), row.latency_ms) for row in chosen]
        found = calibration_report(device, measured, precision, names=[row.model for row in chosen])
        device, used = found.device, used + found.used
        spread[precision] = device.spread[precision]
        set_aside += found.set_aside
        if found.left_out_error is not None:
            errors[precision] = found.left_out_error
    described = replace(
        device,
        name=name,
        description=f"{base.name}, calibrated with {used} measurements",
        measurable=False,
        reference_ms=None,
        conditions={} if base.measurable else base.conditions,
        spread=spread,
    )
    return CalibratedDevice(device=described, used=used, set_aside=tuple(set_aside), left_out_errors=errors)


def _model(row: MeasuredLatency, input_shape: tuple[int, ...] | None) -> Model:
    try:
        return find_model(row.model, input_shape)
    except InputError as error:
        raise InputError(f"{row.place}: {error}") from None
