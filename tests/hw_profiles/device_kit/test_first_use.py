"""The first use on another kind of machine: a check, and a calibration where it is needed, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles import load_device, profile
from hw_profiles.device_kit import first_use, machine_check
from hw_profiles.device_kit.first_use import device_here
from hw_profiles.device_kit.kit_networks import FIRST, in_precisions, kit_names
from hw_profiles.device_kit.machine_check import check_machine
from hw_profiles.devices.device_file import kept_file, shipped_device, to_toml
from hw_profiles.devices.machine import conditions, matches_this_machine
from hw_profiles.errors import InputError
from hw_profiles.measurement import latency_measurement
from search_spaces import preset
from tests.hw_profiles.device_kit.other_machine import Clock, other_machine

NEWER = {"conv/": 0.6, "integer": 0.5, "other/": 1.2}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with nothing in it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(first_use, "reference_ms", lambda threads: 0.05)
    return tmp_path / "fitnas" / "devices"


def clock(monkeypatch: pytest.MonkeyPatch, factors: dict[str, float]) -> Clock:
    made = Clock(other_machine(factors))
    monkeypatch.setattr(machine_check, "measure_here", made.measure)
    monkeypatch.setattr(machine_check, "kit_file", made.file)
    return made


def times_of(count: int) -> int:
    return sum(len(in_precisions(name)) for name in kit_names()[:count])


def test_a_machine_of_another_kind_is_calibrated_once_and_kept(
    kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = clock(monkeypatch, NEWER)
    assert load_device("host") == shipped_device("host")
    with caplog.at_level("INFO", "fitnas"):
        device = device_here("host")
    assert len(other.measured) == len(set(other.measured)) == times_of(len(kit_names()))
    assert "was not measured on this kind of machine" in caplog.text
    assert "calibrating once" in caplog.text
    assert matches_this_machine(device.conditions, 1)
    assert device.reference_ms == 0.05
    before = shipped_device("host")
    for precision in ("fp32", "int8"):
        networks = [
            preset(name, input_shape=(3, 96, 96)) for name in ("mobilenetv2_100", "mnasnet_100", "mobilenetv1_050")
        ]
        truth = np.array([profile(each, other.truth, precision).latency_ms for each in networks])
        errors = [
            np.abs(np.array([profile(each, d, precision).latency_ms for each in networks]) / truth - 1).max()
            for d in (before, device)
        ]
        assert errors[1] < 0.1
        assert errors[1] < errors[0] / 2
    assert device_here("host") == load_device("host") == device
    assert len(other.measured) == times_of(len(kit_names()))
    assert sorted(path.suffix for path in kept.iterdir()) == [".lock", ".toml"]


def test_a_machine_whose_times_are_as_estimated_keeps_the_costs(
    kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = clock(monkeypatch, {"pool": 1.02})
    with caplog.at_level("INFO", "fitnas"):
        device = device_here("host")
    assert len(other.measured) == times_of(FIRST)
    assert "estimates agree with" in caplog.text
    assert matches_this_machine(device.conditions, 1)
    assert device.costs["int8"].keys() == shipped_device("host").costs["int8"].keys()
    arch = preset("resnet8")
    assert profile(arch, device).latency_ms == pytest.approx(profile(arch, shipped_device("host")).latency_ms, rel=1e-3)


def test_what_needs_no_calibration_measures_nothing(
    kept: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = clock(monkeypatch, NEWER)
    file = tmp_path / "mine.toml"
    file.write_text(to_toml(shipped_device("host")))
    assert device_here("raspberry-pi-4") == load_device("raspberry-pi-4")
    assert device_here(file) == load_device(file)
    kept.mkdir(parents=True)
    here = replace(shipped_device("host"), conditions=conditions(1))
    kept_file("host").write_text(to_toml(here))
    assert device_here("host") == load_device(kept_file("host"))
    assert other.measured == []


def test_a_kept_device_is_of_one_kind_of_machine(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hw_profiles.devices import machine

    names = {kept_file("host")}
    here = dict(machine._conditions())
    for name in ("model", "stepping", "caches", "onnxruntime"):
        monkeypatch.setattr(machine, "_conditions", lambda name=name: {**here, name: "another"})
        names.add(kept_file("host"))
        assert not matches_this_machine({**here, "threads": "1"}, 1)
    monkeypatch.setattr(machine, "_conditions", lambda: {**here, "clock_mhz": "another"})
    assert kept_file("host") in names
    assert matches_this_machine({**here, "threads": "1"}, 1)
    assert len(names) == 5


def test_a_check_says_how_far_a_device_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    host = shipped_device("host")
    clock(monkeypatch, {})
    same = check_machine(host)
    assert same.holds
    assert [same.share_within(p) for p in same.precisions] == [1.0, 1.0]
    clock(monkeypatch, {"integer": 1.5})
    other = check_machine(host)
    assert not other.holds
    assert (other.share_close("fp32"), other.share_close("int8") < 0.5) == (1.0, True)
    assert other.median_error("int8") > 0.1
    with pytest.raises(InputError, match="raspberry-pi-4 cannot be measured on this machine"):
        check_machine(load_device("raspberry-pi-4"))


def test_a_check_compares_milliseconds_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference network takes what it takes here, not what it took where the device was made."""
    monkeypatch.setattr(latency_measurement, "reference_ms", lambda threads: 0.07)
    made_elsewhere = replace(shipped_device("host"), reference_ms=40.0, conditions={"cpu": "another"})
    for device, nominal in ((made_elsewhere, 0.07), (replace(made_elsewhere, conditions=conditions(1)), 40.0)):
        made = clock(monkeypatch, {})
        check_machine(device)
        assert set(made.nominal) == {nominal}


def test_a_folder_that_cannot_be_written_to_is_named_before_anything_is_measured(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = clock(monkeypatch, NEWER)
    kept.parent.write_text("a file")
    with pytest.raises(InputError, match=r"fitnas.devices must be writable \(.*\): set XDG_DATA_HOME to one that is"):
        device_here("host")
    assert other.measured == []
