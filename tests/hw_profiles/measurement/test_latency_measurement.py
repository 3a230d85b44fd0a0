"""Measuring on this machine: it runs, its interval is one, its milliseconds stay what they were."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout

from hw_profiles import Workload
from hw_profiles.cost_model.kernel_costs import KernelCost
from hw_profiles.errors import InputError
from hw_profiles.measurement import latency_measurement
from hw_profiles.measurement.interleaved_timing import clock_of
from hw_profiles.measurement.latency_measurement import compare, measure, measuring_lock, median_interval
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.session import open_session
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces import preset
from tests.hw_profiles.synthetic import device_of

COSTS = {"fp32": {"call/call": KernelCost(coefficients=(1.0, 0.0, 0.0, 0.0, 0.0))}}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(latency_measurement, "_NOMINAL_ROUNDS", 5)
    return tmp_path / "cache"


def int8(workload: Workload) -> bytes:
    return write_onnx(workload, quantization=fixed_quantization(workload))


def test_measurements_have_an_interval_and_keep_the_nominal_time(cache: Path) -> None:
    data = int8(preset("resnet8").workload())
    found = measure(data, device_of(COSTS), max_rounds=15)
    assert 0 < found.low_ms <= found.ms <= found.high_ms
    assert found.source == "measured"
    assert found.raw_ms is not None
    [kept] = (cache / "fitnas").glob("host-*.json")
    before = kept.read_bytes()
    measure(data, device_of(COSTS), max_rounds=15)
    assert kept.read_bytes() == before


def test_milliseconds_are_ratios_to_the_reference_times_its_nominal_ones(
    cache: Path,
) -> None:
    """The reference network itself takes what it took when the device was measured, however busy the machine is now."""
    device = replace(device_of(COSTS), reference_ms=40.0)
    found = measure(latency_measurement.reference_model(), device, max_rounds=31)
    assert found.ms == pytest.approx(40, rel=0.25)
    assert not cache.exists()
    elsewhere = replace(device_of(COSTS, cpu="another"), reference_ms=40.0)
    assert measure(latency_measurement.reference_model(), elsewhere, max_rounds=15).ms < 20
    assert found.raw_ms is not None
    assert found.raw_ms < 20


def test_a_cache_that_cannot_be_written_to_is_named(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(InputError, match=r"fitnas must be writable \(.*\): set XDG_CACHE_HOME to one that is"):
        measure(b"", device_of(COSTS))


def test_a_network_of_many_more_operations_takes_longer(tmp_path: Path) -> None:
    for name, arch in (("small", preset("resnet8")), ("large", preset("mobilenetv2_100"))):
        (tmp_path / f"{name}.onnx").write_bytes(write_onnx(arch.workload()))
    median, low, high = compare(tmp_path / "large.onnx", tmp_path / "small.onnx", device_of(COSTS), max_rounds=15)
    assert 2 < low <= median <= high


def test_the_interval_of_the_median_holds_it_nine_times_in_ten() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        low, high = median_interval(generator.exponential(size=31).tolist())
        held += low <= np.log(2) <= high
    assert 0.86 < held / 2000 < 0.96


def test_time_is_that_of_the_own_thread_where_its_clock_is_fine_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (clock_of(1), clock_of(2)) == (time.thread_time, time.perf_counter)
    monkeypatch.setattr(sys, "platform", "win32")
    assert clock_of(1) == time.perf_counter


def test_only_this_machine_can_be_measured(tmp_path: Path) -> None:
    phone = device_of(COSTS, measurable=False)
    for attempt in (lambda: measure(b"", phone), lambda: compare(tmp_path, tmp_path, phone)):
        with pytest.raises(ValueError, match="made_up is not this machine, so its latency cannot be measured here"):
            attempt()


def test_a_file_that_cannot_be_loaded_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    for source, said in ((tmp_path / "bad.onnx", r"bad.onnx: ONNX Runtime cannot load it"), (b"x", "the model: ONNX")):
        with pytest.raises(ValueError, match=said) as caught:
            open_session(source)
        assert "\n" not in str(caught.value)


def test_only_one_process_measures_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where nobody else takes the lock in between
    other = FileLock(tmp_path / "fitnas-measuring" / "lock", blocking=False)
    with measuring_lock(), pytest.raises(Timeout):
        other.acquire()
    with other:
        pass


def test_every_user_can_take_the_measuring_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    with shared_folder() as folder, second_umask(0o077):
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        for user in (65534, 65533):
            with another_user(user), measuring_lock():
                pass
        place = folder / "fitnas-measuring"
        assert [path.stat().st_mode & 0o1777 for path in (place, place / "lock")] == [0o777, 0o666]
        assert list(folder.iterdir()) == [place]


@contextmanager
def shared_folder() -> Iterator[Path]:
    """As /tmp is: open to all, but nobody may put away the files of others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def second_umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    yield
    os.umask(before)


@contextmanager
def another_user(user: int) -> Iterator[None]:
    """Only root can become one; for others the modes of the files have to do."""
    before = os.geteuid()
    os.seteuid(user if before == 0 else before)
    try:
        yield
    finally:
        os.seteuid(before)
