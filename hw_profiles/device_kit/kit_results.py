"""Times of the kit's networks, read from ``result.json``, and the devices that they make."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from hw_profiles.calibration import calibration_report
from hw_profiles.device_kit.kit_networks import kit_digest, kit_workload, known_names
from hw_profiles.devices.c99_program import deploys_c99, runs_c99, with_c99_costs
from hw_profiles.devices.device import Device
from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import PRECISIONS
from hw_profiles.profiling import Model
from hw_profiles.runtimes.fusion import RUNTIMES
from hw_profiles.spelling_suggestions import check_one_of

RESULT_SCHEMA = 1
_MOST_BYTES = 1_000_000
_MOST_ROWS = 1_000
_MOST_CONDITIONS = 30
_LONGEST_CONDITION = 4_000
_MOST_THREADS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class KitTime:
    """A network of the kit in a precision, and its milliseconds; they may be no number where a file says so."""

    network: str
    precision: str
    latency_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class KitResult:
    """What a run of the kit measured: the times, under which conditions, and what the reference network took."""

    conditions: Mapping[str, str]
    runtime: str
    reference_ms: float | None
    times: tuple[KitTime, ...]

    @property
    def threads(self) -> int:
        """Threads per network."""
        return int(self.conditions["threads"])


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibratedDevice:
    """A device made of measured times: how many were used, which were set aside and why, and by precision the
    mean of |estimate / measurement - 1| of each network estimated from the others.
    """

    device: Device
    used: int
    set_aside: tuple[str, ...]
    left_out_errors: Mapping[str, float]


def read_result(path: Path) -> KitResult:
    """The content of a ``result.json``.

    Raises:
        InputError: no such file, or one that the script of this version's kit did not write.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return parse_result(data, str(path))


def parse_result(data: bytes, name: str) -> KitResult:
    """As :func:`read_result`, from bytes; ``name`` says in errors where they are from.

    >>> parse_result(b"{}", "result.json")
    Traceback (most recent call last):
    hw_profiles.errors.InputError: result.json: must be a result of the kit: schema must be 1, got None
    """
    if len(data) > _MOST_BYTES:
        raise InputError(f"{name}: must be of at most {_MOST_BYTES} bytes")
    try:
        found = json.loads(data[max(data.find(b"{"), 0) : data.rfind(b"}") + 1])  # a serial port may say more
        _check(isinstance(found, dict), "it must be a JSON object")
        return _result(found)
    except (InputError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: must be a result of the kit: {error!s:.200}") from None


def _result(found: dict[str, Any]) -> KitResult:
    _check(found.get("schema") == RESULT_SCHEMA, f"schema must be {RESULT_SCHEMA}, got {found.get('schema')!r:.40}")
    runtime, reference, rows = found.get("runtime"), found.get("reference_ms"), found.get("networks")
    check_one_of("runtime", runtime, RUNTIMES)
    _check(
        reference is None or _is_positive(reference), f"reference_ms must be a positive number, got {reference!r:.40}"
    )
    _check(isinstance(rows, list) and 0 < len(rows) <= _MOST_ROWS, f"networks must be 1 to {_MOST_ROWS} rows")
    _check(
        found.get("kit") == kit_digest(),
        f"it is from the kit {found.get('kit')!r:.40} of another version of fitnas, whose networks are not those of "
        f"{kit_digest()}: run `nas devices kit` again and measure that one",
    )
    assert isinstance(rows, list)
    return KitResult(
        conditions=_conditions(found.get("conditions")),
        runtime=str(runtime),
        reference_ms=None if reference is None else float(reference),
        times=tuple(_time(row) for row in rows),
    )


def _conditions(stated: Any) -> dict[str, str]:
    _check(isinstance(stated, dict) and len(stated) <= _MOST_CONDITIONS, "conditions must be an object")
    for key, value in stated.items():
        _check(
            isinstance(value, str) and max(len(key), len(value)) <= _LONGEST_CONDITION
            and key.isprintable() and value.isprintable(),
            f"conditions.{key!r:.40} must be printable text, got {value!r:.40}",
        )  # fmt: skip
    threads = stated.get("threads", "")
    _check(
        threads.isascii() and threads.isdecimal() and len(threads) <= 4 and 1 <= int(threads) <= _MOST_THREADS,
        f"conditions.threads must be between 1 and {_MOST_THREADS}, got {threads!r:.40}",
    )
    return dict(stated)


def _time(row: Any) -> KitTime:
    _check(isinstance(row, dict), f"each of networks must be an object, got {row!r:.40}")
    network, precision, ms = row.get("network"), row.get("precision"), row.get("latency_ms")
    _check(network in known_names(), f"network must be one of the kit, got {network!r:.40}")
    check_one_of("precision", precision, PRECISIONS)
    return KitTime(network=network, precision=precision, latency_ms=float(ms) if _is_number(ms) else math.nan)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)


def device_of_result(base: Device, result: KitResult, name: str, *, measurable: bool = False) -> CalibratedDevice:
    """The base with its costs corrected to a machine that ran the kit, and with that machine's conditions. Of a
    microcontroller that ran C99 programs, the base is what it is estimated to take for such programs.

    ``measurable`` states whether that machine is this one. Precisions that were not measured are left out, as
    they would be those of another machine.

    Raises:
        InputError: the base is of another runtime, or has no costs in a precision that was measured.
    """
    if base.runtime != result.runtime:
        raise InputError(
            f"the results were measured with {result.runtime}, but device {base.name} is for {base.runtime}"
        )
    if result.runtime == "c99" and runs_c99(base):
        base = with_c99_costs(base)
    device, used, set_aside, errors = base, 0, list[str](), dict[str, float]()
    measured = [each for each in PRECISIONS if any(time.precision == each for time in result.times)]
    for precision in measured:
        times = [time for time in result.times if time.precision == precision]
        found = calibration_report(
            device, _models(times), precision, names=[f"{time.network} {precision}" for time in times]
        )
        device, used = found.device, used + found.used
        set_aside += found.set_aside
        if found.left_out_error is not None:
            errors[precision] = found.left_out_error
    cpu, version = (result.conditions.get(key, "?") for key in ("cpu", "onnxruntime"))
    runtime = f"ONNX Runtime {version}" if result.runtime == "ort" else result.runtime
    own = replace(
        device,
        name=name,
        description=f"{cpu} through {runtime}, {result.threads} thread{'s'[: result.threads > 1]}",
        threads=result.threads,
        measurable=measurable,
        source=f"costs of {base.name}, corrected by {used} times of the networks of `nas devices kit`",
        reference_ms=result.reference_ms,
        conditions={**result.conditions, "date": date.today().isoformat()},
        calibrated=tuple(measured) if deploys_c99(base) else (),
        spread={precision: device.spread[precision] for precision in measured},
        costs={precision: device.costs[precision] for precision in measured},
        held_out={},
    )
    return CalibratedDevice(device=own, used=used, set_aside=tuple(set_aside), left_out_errors=errors)


def _models(times: Sequence[KitTime]) -> list[tuple[Model, float]]:
    return [(kit_workload(time.network), time.latency_ms) for time in times]
