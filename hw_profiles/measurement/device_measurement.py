"""Makes a device file for this machine from the times of random networks."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.cost_model.features import network_features
from hw_profiles.cost_model.fit import Observation, cross_validated_errors, fit
from hw_profiles.cost_model.kernel_costs import KernelCost
from hw_profiles.cost_model.refine import adapt
from hw_profiles.devices.device import Device
from hw_profiles.devices.device_file import save_device
from hw_profiles.devices.facts import NINETY
from hw_profiles.devices.machine import conditions
from hw_profiles.errors import InputError
from hw_profiles.measurement.benchmark_set import MeasuredNetworks
from hw_profiles.measurement.latency_measurement import measure_here, reference_ms
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.network.tensor_formats import check_precision
from hw_profiles.network.workload import Workload
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.runtimes.fusion import fuse

log = logging.getLogger("fitnas")

FEWEST_NETWORKS, FEWEST_WITH_PRIOR = 60, 10
_MOST_WITH_PRIOR = 600  # networks, from which on they say more than another machine
_MOST_ROUNDS = 40
_FIRST_PASS = 0.85  # of the time; the rest measures again what does not fit
_SUSPICIOUS = 0.05  # share of the networks that are measured again
_CHANNEL_MULTIPLE = 16
_REPORT_SECONDS = 10

Array = NDArray[np.float64]
Times = dict[tuple[str, int], list[float]]


def measure_device(
    out: str | Path,
    *,
    seconds: float = 600,
    threads: int = 1,
    precisions: Sequence[str] = ("fp32", "int8"),
    typical: Callable[[int], Workload] | None = None,
    prior: Device | None = None,
) -> Device:
    """Benchmark random networks on this machine until the time is over, and write a device file fitted to them.

    With a ``prior``, a device of another machine with ONNX Runtime, the costs are those of the prior, corrected by the
    measurements: useful after a few seconds. If many networks are measured, the costs are also fitted to them alone,
        and those with the smaller error on held-out networks are used.

    ``typical`` returns a network for each number from 0 on, similar to those that will be estimated: every second
    network measured is one of these, and the interval of an estimate is that of their errors.

    Each time is appended to ``out`` with the ending ``.partial.jsonl`` at once; an interrupted call resumes from there,
    and the file is removed in the end.

    Raises:
        InputError: no ``.toml`` file, an unknown precision, too little time, or a measurement that was started
            under different conditions.
    """
    out = Path(out)
    if out.suffix != ".toml":
        raise InputError(f"a device file must be a .toml file, got {str(out)!r}")
    for precision in precisions:
        check_precision(precision)
    journal = _Journal(out.with_suffix(".partial.jsonl"), threads, MeasuredNetworks(typical))
    end = time.monotonic() + seconds
    _first_pass(journal, precisions, (time.monotonic(), time.monotonic() + _FIRST_PASS * seconds))
    for precision in precisions:
        count = _count(journal, precision)
        fewest = FEWEST_NETWORKS if prior is None or precision not in prior.costs else FEWEST_WITH_PRIOR
        if count < fewest:
            raise InputError(
                f"at least {fewest} networks must be measured in {precision}, got {count}: allow more time "
                f"(rerun the same command to resume from {journal.path})"
            )
    if all(_count(journal, precision) >= FEWEST_NETWORKS for precision in precisions):
        log.info("checking the measurements for outliers")
        for i, precision in enumerate(precisions):
            share = (end - time.monotonic()) / (len(precisions) - i)
            _measure_again(journal, precision, time.monotonic() + share)
    log.info("fitting kernel costs")
    device = _device(out.stem, journal, precisions, prior)
    save_device(out, device)
    journal.path.unlink(missing_ok=True)
    return device


class _Journal:
    """Times by precision and number of the network, kept in a file as they come, and what they are relative to."""

    def __init__(self, path: Path, threads: int, networks: MeasuredNetworks) -> None:
        self.path = path
        self.threads = threads
        self.networks = networks
        self.times: Times = {}
        here = conditions(threads)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.reference_ms = round(reference_ms(threads), 6)
            path.write_text(json.dumps(self._header(here)) + "\n")
            return
        text = path.read_text()
        lines = text.splitlines()
        header = (_row(lines[0]) if lines else None) or {}
        self.reference_ms = header.get("reference_ms", 0.0)
        if header != self._header(here):
            raise InputError(f"{path} was started under different conditions: delete it to start over")
        if not text.endswith("\n"):  # cut off by a kill: what is added must not join it
            with path.open("a") as file:
                file.write("\n")
        for line in lines[1:]:
            row = _row(line)
            if row is not None:
                self.times.setdefault((row["precision"], row["network"]), []).append(row["microseconds"])

    def _header(self, here: dict[str, str]) -> dict[str, Any]:
        typical = self.networks.typical is not None
        return {"conditions": here, "typical": typical, "reference_ms": self.reference_ms}

    def add(self, precision: str, number: int, microseconds: float) -> None:
        row = {"precision": precision, "network": number, "microseconds": round(microseconds, 3)}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.times.setdefault((precision, number), []).append(microseconds)


def _row(line: str) -> dict[str, Any] | None:
    """A line; None where it was cut off by a kill."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def _first_pass(journal: _Journal, precisions: Sequence[str], span: tuple[float, float]) -> None:
    start, end = span
    number, reported = 0, start
    while time.monotonic() < end:
        for precision in precisions:
            written = precision == "fp32" or not journal.networks.is_float(number)
            if written and (precision, number) not in journal.times:
                _measure(journal, precision, number)
        number += 1
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            left = max(0.0, end - reported)
            log.info("%d networks measured, %d:%02d left", len(journal.times), left // 60, left % 60)


def _measure_again(journal: _Journal, precision: str, end: float) -> None:
    """Twice more, those whose time is farthest from what the others say: something else may have been running."""
    numbers = [number for p, number in journal.times if p == precision]
    errors = np.abs(cross_validated_errors([_observation(journal, precision, number) for number in numbers]))
    worst = np.argsort(-errors)[: math.ceil(_SUSPICIOUS * len(numbers))]
    for number in (numbers[i] for i in worst):
        for _ in range(2):
            if time.monotonic() >= end:
                return
            _measure(journal, precision, number)


def _measure(journal: _Journal, precision: str, number: int) -> None:
    workload = journal.networks.workload(number)
    quantization = fixed_quantization(workload) if precision == "int8" else None
    file = write_onnx(workload, quantization=quantization)
    found = measure_here(file, journal.threads, journal.reference_ms, max_rounds=_MOST_ROUNDS)
    journal.add(precision, number, 1000 * found.ms)


def _observation(journal: _Journal, precision: str, number: int) -> Observation:
    workload = journal.networks.workload(number).with_precision(precision)
    return Observation(tuple(network_features(workload, fuse(workload))), median(journal.times[precision, number]))


def _count(journal: _Journal, precision: str) -> int:
    return sum(1 for each, _ in journal.times if each == precision)


def _costs(
    observations: Sequence[Observation], prior: Mapping[str, KernelCost] | None
) -> tuple[Mapping[str, KernelCost], Array]:
    """The costs that predict left out networks best, and log(predicted / measured) of each network when left out."""
    found: list[tuple[Mapping[str, KernelCost], Array]] = []
    if prior is None or len(observations) >= FEWEST_NETWORKS:
        found.append((fit(observations), cross_validated_errors(observations)))
    if prior is not None and len(observations) <= _MOST_WITH_PRIOR:
        networks = [observation.all_features for observation in observations]
        adapted = adapt(prior, networks, [observation.microseconds for observation in observations])
        found.append((adapted.costs, np.array(adapted.left_out)))
    return min(found, key=lambda each: float(np.mean(np.abs(each[1]))))


def _device(name: str, journal: _Journal, precisions: Sequence[str], prior: Device | None) -> Device:
    times, threads = journal.times, journal.threads
    costs, spread = {}, {}
    for precision in precisions:
        numbers = [number for p, number in sorted(times) if p == precision]
        observations = [_observation(journal, precision, number) for number in numbers]
        costs[precision], left_out = _costs(observations, None if prior is None else prior.costs.get(precision))
        errors = np.abs(left_out)[[journal.networks.is_typical(n) for n in numbers]]
        spread[precision] = round(float(np.quantile(errors, 0.9)) / NINETY, 4)
        log.info("%s: %d networks, median cross-validation error %.1f %%", precision, len(observations),
                 100 * float(np.median(errors)))  # fmt: skip
    here = conditions(threads)
    return Device(
        name=name,
        description=f"{here['cpu']} through ONNX Runtime {here['onnxruntime']}, {threads} thread{'s'[: threads > 1]}",
        runtime="ort",
        threads=threads,
        channel_multiple=_CHANNEL_MULTIPLE,
        measurable=True,
        source=f"nas devices measure: {len(times)} random networks{f', from {prior.name}' if prior else ''}",
        reference_ms=journal.reference_ms,
        conditions={**here, "date": date.today().isoformat()},
        spread=spread,
        costs=costs,
    )
