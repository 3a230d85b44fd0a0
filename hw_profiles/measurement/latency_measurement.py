"""Measures latency on this machine, relative to a reference network."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from hw_profiles.atomic_writes import write_text
from hw_profiles.devices.device import Device
from hw_profiles.devices.machine import conditions, matches_this_machine
from hw_profiles.errors import InputError
from hw_profiles.latency.estimate import Latency
from hw_profiles.measurement.interleaved_timing import alternate, clock_of, median_interval, median_seconds, repetitions
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.network.workload import InputShape, WorkloadBuilder
from hw_profiles.onnx_io.session import open_session
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.user_folders import CACHE_VARIABLE, cache_folder, kept_in

_NOMINAL_ROUNDS = 300
_FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def measure(
    model: bytes | Path,
    device: Device,
    *,
    input_shape: InputShape = None,
    max_rounds: int = 60,
    precise: float = 0.02,
) -> Latency:
    """Run an ONNX file on this machine, batch 1, and say how long it takes.

    ``input_shape`` (C, H, W), or sides by the names of several inputs, is what it reads where it leaves that open. It
    reads random numbers, and zeros where it wants integers.

    Rounds of the model and of a fixed reference network alternate; the result is the median ratio of their times, times
    the milliseconds that the reference took when the device file was made or, where that was under other conditions,
    when this machine was first measured (kept in the user's cache folder). So a machine that is busy today gives nearly
    the same answer. It ends when the 90 % interval of the median is narrower
    than ``precise`` either way, or after ``max_rounds``. One process measures at a time.

    Raises:
        InputError: the device is not this machine.
    """
    _require_here(device)
    return measure_here(
        model, device.threads, nominal_ms(device), input_shape=input_shape, max_rounds=max_rounds, precise=precise
    )


def nominal_ms(device: Device) -> float:
    """What the reference network takes here: as the device file says where it was made under the conditions that hold
    here, else as it was measured on this machine.
    """
    known = device.reference_ms if matches_this_machine(device.conditions, device.threads) else None
    return known or reference_ms(device.threads)


def measure_here(
    model: bytes | Path,
    threads: int,
    nominal: float,
    *,
    input_shape: InputShape = None,
    max_rounds: int = 60,
    precise: float = 0.02,
) -> Latency:
    """As :func:`measure`, with so many threads, and ``nominal`` milliseconds of the reference network."""
    with measuring_lock():
        run, reference = _runner(model, threads, input_shape), _runner(reference_model(), threads)
        ratios, raw = alternate(run, reference, max_rounds, precise, clock_of(threads))
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
        ratios, _ = alternate(runs[0], runs[1], max_rounds, 0.01, clock_of(device.threads))
    return (statistics.median(ratios), *median_interval(ratios))


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
        raise InputError(f"{device.name} is not this machine, so its latency cannot be measured here")


def _runner(model: bytes | Path, threads: int, input_shape: InputShape = None) -> Callable[[], None]:
    session = open_session(model, threads)
    specs = session.get_inputs()
    given = input_shape if isinstance(input_shape, Mapping) else {specs[0].name: input_shape}
    feed = {spec.name: _numbers(spec, given.get(spec.name)) for spec in specs}
    outputs = [o.name for o in session.get_outputs()]

    def run() -> None:
        session.run(outputs, feed)

    return run


def _numbers(spec: Any, sides: tuple[int, ...] | None) -> NDArray[Any]:
    """What an input is given: batch 1 unless the file says another."""
    own = [side if isinstance(side, int) and side > 0 else 1 for side in spec.shape]
    shape = [*(own[:1] or [1]), *sides] if sides else own
    if spec.type == "tensor(string)":
        raise InputError(f"input {spec.name}: models with string inputs cannot be measured")
    if spec.type in _FLOAT_TYPES:
        return np.random.default_rng(0).standard_normal(shape).astype(_FLOAT_TYPES[spec.type])
    kind = spec.type.removeprefix("tensor(").removesuffix(")")
    return np.zeros(shape, np.dtype(kind))


def reference_model() -> bytes:
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
        run = _runner(reference_model(), threads)
        clock = clock_of(threads)
        times = repetitions(run, clock)
        found = statistics.median(median_seconds(run, times, clock) for _ in range(_NOMINAL_ROUNDS)) * 1000
        with kept_in(cache.parent, CACHE_VARIABLE):
            write_text(cache, json.dumps({"reference_ms": found, "conditions": where}, indent=1))
    return found


def _kept_reference(cache: Path) -> float | None:
    """What was measured before; None where nothing was, or where the file is broken."""
    try:
        found = float(json.loads(cache.read_text(encoding="utf-8"))["reference_ms"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if 0 < found < math.inf else None
