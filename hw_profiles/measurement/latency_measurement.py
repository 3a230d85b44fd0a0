"""Measures latency on this machine, relative to a reference network."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock

from hw_profiles.cache_folder import cache_folder
from hw_profiles.devices.device import Device
from hw_profiles.devices.machine import conditions, matches_this_machine
from hw_profiles.errors import InputError
from hw_profiles.latency.estimate import Latency
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.network.workload import WorkloadBuilder
from hw_profiles.onnx_io.session import open_session
from hw_profiles.onnx_io.writer import write_onnx

_WARMUP_RUNS = 10
_ROUND_SECONDS = 0.002
_FEWEST_ROUNDS = 15
_NOMINAL_ROUNDS = 300


def measure(
    model: bytes | Path,
    device: Device,
    *,
    input_shape: tuple[int, ...] | None = None,
    max_rounds: int = 60,
    precise: float = 0.02,
) -> Latency:
    """Run an ONNX file on this machine, batch 1, and say how long it takes.

    ``input_shape`` (C, H, W) is what it reads where it leaves that open.

    Rounds of the model and of a fixed reference network alternate; the result is the median ratio of their times, times
    the milliseconds that the reference took when the device file was made or, where that was under other conditions,
    when this machine was first measured (kept in the user's cache folder). So a machine that is busy today gives nearly
    the same answer. It ends when the 90 % interval of the median is narrower
    than ``precise`` either way, or after ``max_rounds``. One process measures at a time.

    Raises:
        InputError: the device is not this machine.
    """
    _require_here(device)
    known = device.reference_ms if matches_this_machine(device.conditions, device.threads) else None
    return measure_here(
        model, device.threads, known or reference_ms(device.threads), input_shape=input_shape, max_rounds=max_rounds,
        precise=precise,
    )  # fmt: skip


def measure_here(
    model: bytes | Path,
    threads: int,
    nominal: float,
    *,
    input_shape: tuple[int, ...] | None = None,
    max_rounds: int = 60,
    precise: float = 0.02,
) -> Latency:
    """As :func:`measure`, with so many threads, and ``nominal`` milliseconds of the reference network."""
    with measuring_lock():
        run, reference = _runner(model, threads, input_shape), _runner(_reference_model(), threads)
        ratios, raw = _alternate(run, reference, max_rounds, precise)
    low, high = median_interval(ratios)
    return Latency(
        ms=statistics.median(ratios) * nominal,
        low_ms=low * nominal,
        high_ms=high * nominal,
        source="measured",
        raw_ms=statistics.median(raw),
    )


def compare(model: Path, other: Path, device: Device, *, max_rounds: int = 60) -> tuple[float, float, float]:
    """How many times as long ``model`` takes as ``other``, both run in turn on this machine: median and 90 % interval.

    Raises:
        InputError: the device is not this machine.
    """
    _require_here(device)
    with measuring_lock():
        runs = [_runner(path, device.threads) for path in (model, other)]
        ratios, _ = _alternate(runs[0], runs[1], max_rounds, precise=0.01)
    return (statistics.median(ratios), *median_interval(ratios))


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 90 % interval of the median by order statistics.

    >>> median_interval(list(range(101)))
    (41, 59)
    """
    ordered = sorted(values)
    reach = 0.5 * 1.645 * math.sqrt(len(ordered))
    middle = (len(ordered) - 1) / 2
    return ordered[max(0, math.floor(middle - reach))], ordered[min(len(ordered) - 1, math.ceil(middle + reach))]


@contextmanager
def measuring_lock() -> Iterator[None]:
    """Held by the one process on this machine that measures, of whichever user; waits for its turn."""
    with FileLock(_folder_of_all() / "lock", mode=0o666):
        yield


def _folder_of_all() -> Path:
    """A folder that every user of this machine may write in, whatever the umask: straight in the temporary folder,
    filelock refuses a file that another user made."""
    folder = Path(tempfile.gettempdir()) / "fitnas-measuring"
    if not folder.is_dir():
        made = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
        made.chmod(0o777)
        try:
            made.rename(folder)  # so nobody meets it before all may write in it
        except OSError:  # another process was quicker
            made.rmdir()
    return folder


def _require_here(device: Device) -> None:
    if not device.measurable:
        raise InputError(f"device {device.name} cannot be measured here: it is not this machine")


def _alternate(
    run: Callable[[], None], reference: Callable[[], None], max_rounds: int, precise: float
) -> tuple[list[float], list[float]]:
    times = [_repetitions(f) for f in (run, reference)]
    ratios: list[float] = []
    raw: list[float] = []
    while len(ratios) < max_rounds:
        ours = _median_seconds(run, times[0])
        theirs = _median_seconds(reference, times[1])
        ratios.append(ours / theirs)
        raw.append(ours * 1000)
        if len(ratios) >= _FEWEST_ROUNDS:
            low, high = median_interval(ratios)
            if (high - low) / 2 < precise * statistics.median(ratios):
                break
    return ratios, raw


def _repetitions(run: Callable[[], None]) -> int:
    for _ in range(_WARMUP_RUNS):
        run()
    return max(3, min(50, round(_ROUND_SECONDS / _median_seconds(run, 5))))


def _median_seconds(run: Callable[[], None], times: int) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _runner(model: bytes | Path, threads: int, input_shape: tuple[int, ...] | None = None) -> Callable[[], None]:
    session = open_session(model, threads)
    spec = session.get_inputs()[0]
    shape = [1, *input_shape] if input_shape else [side if isinstance(side, int) else 1 for side in spec.shape]
    feed = {spec.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    outputs = [o.name for o in session.get_outputs()]

    def run() -> None:
        session.run(outputs, feed)

    return run


def _reference_model() -> bytes:
    """Three 3×3 convolutions of 32 channels at 16×16, int8: 7 M MACs."""
    builder = WorkloadBuilder("input", (1, 32, 16, 16))
    x = "input"
    for i in range(3):
        x = builder.activation(f"act{i}", builder.conv(f"conv{i}", x, 32, kernel_size=3), "relu")
    workload = builder.build()
    return write_onnx(workload, quantization=fixed_quantization(workload))


def reference_ms(threads: int) -> float:
    """The reference network's milliseconds on this machine, measured once for these conditions and stored."""
    where = conditions(threads)
    key = hashlib.sha256(json.dumps(where, sort_keys=True).encode()).hexdigest()[:12]
    cache = cache_folder() / f"host-{key}.json"
    if known := _kept_reference(cache):
        return known
    with measuring_lock():
        if known := _kept_reference(cache):  # by another process, while this one waited
            return known
        run = _runner(_reference_model(), threads)
        times = _repetitions(run)
        found = statistics.median(_median_seconds(run, times) for _ in range(_NOMINAL_ROUNDS)) * 1000
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache.with_suffix(".partial")
        temporary.write_text(json.dumps({"reference_ms": found, "conditions": where}, indent=1))
        temporary.replace(cache)
    return found


def _kept_reference(cache: Path) -> float | None:
    """What was measured before; None where nothing was, or where the file is broken."""
    try:
        found = float(json.loads(cache.read_text(encoding="utf-8"))["reference_ms"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if 0 < found < math.inf else None
