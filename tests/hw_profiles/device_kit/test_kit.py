"""The kit: its files run by themselves, and what they measure makes a device."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles import load_device, profile
from hw_profiles.device_kit import kit_files
from hw_profiles.device_kit.kit_files import kit_contents, script, write_kit
from hw_profiles.device_kit.kit_networks import board_names, kit_digest, kit_names, kit_workload
from hw_profiles.device_kit.kit_results import KitResult, KitTime, device_of_result, parse_result, read_result
from hw_profiles.devices.c99_program import with_c99_costs
from hw_profiles.devices.device_file import save_device, shipped_device, to_toml
from hw_profiles.devices.device_runtimes import with_runtime
from hw_profiles.devices.machine import conditions
from hw_profiles.errors import InputError
from search_spaces import preset
from tests.hw_profiles.device_kit.other_machine import kit_result, other_machine

SLOWER = {"": 3.0, "depthwise": 1.7, "integer": 1.4}


def test_the_script_needs_nothing_of_ours() -> None:
    code = script()
    compile(code, "measure.py", "exec")
    assert "hw_profiles." not in "\n".join(line for line in code.splitlines() if "import" in line)
    assert code.count("from __future__ import annotations") == 1


def test_the_kit_runs_where_fitnas_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit_files, "kit_names", lambda: kit_names()[:1])
    files = write_kit(tmp_path / "kit")
    program, out = tmp_path / "kit" / "measure.py", tmp_path / "result.json"
    hidden = tmp_path / "hidden"  # a package of that name which fails
    hidden.mkdir()
    (hidden / "hw_profiles.py").write_text("raise RuntimeError('fitnas is not there')")
    done = subprocess.run(
        [sys.executable, program, "--out", out], check=False, capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": str(hidden), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"2 times in {json.loads(out.read_text())['seconds']:.0f} s" in done.stdout
    result = read_result(out)
    assert dict(result.conditions) == conditions(1)
    assert [(each.network, each.precision) for each in result.times] == [(kit_names()[0], p) for p in ("fp32", "int8")]
    assert all(0.001 < each.latency_ms < 1000 for each in result.times)
    assert {file.name for file in files} == {path.name for path in (tmp_path / "kit").iterdir()}


def test_the_kit_is_small_and_the_same_each_time() -> None:
    contents = kit_contents()
    assert sum(map(len, contents.values())) < 25e6
    assert 20 <= sum(name.endswith(".onnx") for name in contents) <= 60
    assert kit_contents(["int8"]).keys() < contents.keys()
    listed = json.loads(contents["kit.json"])
    assert {each["file"] for each in listed["networks"]} | {"reference.onnx"} == {n for n in contents if ".onnx" in n}


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    for out in (tmp_path, tmp_path / "a"):
        with pytest.raises(InputError, match="already exists and is not an empty folder"):
            write_kit(out)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_times_of_the_kit_make_a_device(precision: str, tmp_path: Path) -> None:
    truth = other_machine(SLOWER)
    found = device_of_result(shipped_device("host"), kit_result(truth, cpu="Another 9000"), "mine")
    (tmp_path / "mine.toml").write_text(to_toml(found.device))
    device = load_device(tmp_path / "mine.toml")
    assert (device.name, device.conditions["cpu"], device.measurable) == ("mine", "Another 9000", False)
    assert found.set_aside == ()
    assert 0 < found.left_out_errors[precision] < 0.1
    held, errors = [], []
    for name in ("mobilenetv2_035", "mobilenetv1_050", "mnasnet_100", "mobilenetv3_small_100", "tf_efficientnet_lite0"):
        arch = preset(name, input_shape=(3, 96, 96))
        predicted, true = profile(arch, device, precision), profile(arch, truth, precision).latency_ms
        held.append(predicted.latency_low_ms <= true <= predicted.latency_high_ms)
        errors.append(abs(predicted.latency_ms / true - 1))
    assert np.mean(errors) < 0.07
    assert sum(held) >= 4


def test_a_time_that_cannot_be_is_set_aside() -> None:
    result = kit_result(other_machine(SLOWER), names=kit_names()[:8])
    first = result.times[0]
    wrong = (replace(first, latency_ms=math.nan), *result.times[1:])
    found = device_of_result(shipped_device("host"), replace(result, times=wrong), "mine")
    [said] = found.set_aside
    assert said.startswith(f"{first.network} {first.precision}: nan ms")


def test_a_precision_that_was_not_measured_is_left_out() -> None:
    result = kit_result(other_machine(SLOWER), names=kit_names()[:8])
    times = tuple(each for each in result.times if each.precision == "int8")
    assert list(device_of_result(shipped_device("host"), replace(result, times=times), "mine").device.costs) == ["int8"]


def test_a_device_measured_in_another_runtime_starts_with_the_kernels_of_onnx_runtime() -> None:
    board = with_runtime("raspberry-pi-4", "ort")
    facts = {name: fact for name, fact in load_device("raspberry-pi-4").facts.items() if name != "measured_with"}
    assert board.facts == facts
    assert profile(preset("resnet8"), board).latency_high_ms > 5 * profile(preset("resnet8"), board).latency_ms
    truth = other_machine({"": 12.0})
    found = device_of_result(board, kit_result(truth), "my_pi").device
    arch = preset("mobilenetv2_100", input_shape=(3, 96, 96))
    assert profile(arch, found).latency_ms == pytest.approx(profile(arch, truth).latency_ms, rel=0.1)
    assert found.facts == board.facts
    with pytest.raises(InputError, match="the results were measured with ort, but device raspberry-pi-4 is for tflite"):
        device_of_result(load_device("raspberry-pi-4"), kit_result(truth, names=kit_names()[:1]), "my_pi")


@pytest.mark.parametrize(
    ("name", "runtime", "said"),
    [
        ("stm32f746", "ort", "device stm32f746 has no runtime 'ort' (valid: c99, tflite)"),
        ("host", "c99", "device host has no runtime 'c99' (valid: ort, tflite, ncnn, torch)"),
    ],
)
def test_a_runtime_that_a_device_lacks_is_refused(name: str, runtime: str, said: str) -> None:
    with pytest.raises(InputError) as found:
        with_runtime(name, runtime)
    assert said in str(found.value)


@pytest.mark.parametrize(
    ("name", "runtime", "lender", "times"),
    [
        ("raspberry-pi-5", "tflite", "raspberry-pi-4", 4),  # another core
        ("raspberry-pi-zero-2-w", "ncnn", "raspberry-pi-3-ncnn", 2),  # the same core
        ("rp2350", "tflite", "nrf5340", 2),
        ("raspberry-pi-4", "torch", "raspberry-pi-4-ncnn", 8),  # other software
    ],
)
def test_a_runtime_without_published_latencies_is_borrowed_by_clock_with_a_wide_interval(
    name: str, runtime: str, lender: str, times: float
) -> None:
    found, lends = with_runtime(name, runtime), load_device(lender)
    assert found.runtime == runtime
    assert f"costs of {lender} by clock" in found.source
    clocks = [float(each.facts["clock_mhz"].value) for each in (lends, found)]
    latencies = [profile(preset("resnet8"), each, "int8") for each in (lends, found)]
    assert latencies[1].latency_ms / latencies[0].latency_ms == pytest.approx(clocks[0] / clocks[1])
    assert latencies[1].latency_high_ms / latencies[1].latency_ms >= 0.99 * times


def test_other_software_on_a_board_has_its_own_facts() -> None:
    """X-CUBE-AI leaves out dead channels; TensorFlow Lite computes them."""
    found, lends = with_runtime("stm32f746", "tflite"), load_device("esp32-s3")
    assert load_device("stm32f746").facts["dead_channels"].value == "dropped"
    assert "dead_channels" not in found.facts
    assert found.facts["runtime_flash_bytes"] == lends.facts["runtime_flash_bytes"]
    assert found.facts["flash_bytes"] == load_device("stm32f746").facts["flash_bytes"]


@pytest.mark.parametrize("base", ["stm32f746", "rp2040"])
def test_the_times_of_our_programs_on_a_board_are_what_a_run_works_with(base: str, tmp_path: Path) -> None:
    counted = with_c99_costs(load_device("stm32l4r5"))
    times = tuple(
        KitTime(network=name, precision="int8", latency_ms=3 * profile(kit_workload(name), counted, "int8").latency_ms)
        for name in board_names()
    )
    result = KitResult(conditions={"threads": "1"}, runtime="c99", reference_ms=None, times=times)
    save_device(tmp_path / "mine.toml", device_of_result(with_runtime(base, "c99"), result, "mine").device)
    device = load_device(tmp_path / "mine.toml")
    assert "dead_channels" not in device.facts
    assert device.facts["measured_with"].value == "C99 programs of fitnas on the board"
    assert device.facts["ram_bytes"] == load_device(base).facts["ram_bytes"]
    in_a_run = with_c99_costs(device)
    assert in_a_run.costs["int8"] == device.costs["int8"]
    arch = preset("mobilenetv1_025", input_shape=(3, 96, 96))
    assert profile(arch, in_a_run, "int8").latency_ms == pytest.approx(
        3 * profile(arch, counted, "int8").latency_ms, rel=0.15
    )
    assert profile(arch, in_a_run, "fp32").latency_high_ms > profile(arch, in_a_run, "int8").latency_high_ms


def test_the_script_refuses_a_folder_that_is_not_there_before_it_measures(tmp_path: Path) -> None:
    (tmp_path / "measure.py").write_text(script())
    done = subprocess.run(
        [sys.executable, "measure.py", "--out", "gone/result.json"], check=False, capture_output=True, text=True,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--out must be a file in a folder that exists, got gone/result.json" in done.stderr


def valid() -> dict[str, Any]:
    row = {"network": kit_names()[0], "precision": "int8", "latency_ms": 1.0}
    return {
        "schema": 1, "kit": kit_digest(), "runtime": "ort", "reference_ms": 0.1, "networks": [row],
        "conditions": {"cpu": "x", "threads": "2"},
    }  # fmt: skip


def test_a_result_is_read_as_it_was_written() -> None:
    found = parse_result(json.dumps(valid()).encode(), "r")
    assert found.times == (KitTime(network=kit_names()[0], precision="int8", latency_ms=1.0),)
    assert found.threads == 2
    huge = {**valid()["networks"][0], "latency_ms": 10**400}
    assert math.isnan(parse_result(json.dumps({**valid(), "networks": [huge]}).encode(), "r").times[0].latency_ms)
    noisy = b"\x00boot\r\n" + json.dumps(valid()).encode() + b"\r\nbye"
    assert parse_result(noisy, "r") == found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema must be 1, got 2"),
        ({"kit": "0" * 16}, "another version of fitnas"),
        ({"runtime": "tpu"}, "runtime must be one of"),
        ({"reference_ms": 0}, "reference_ms must be a positive number"),
        ({"reference_ms": True}, "reference_ms must be a positive number"),
        ({"reference_ms": 10**400}, "reference_ms must be a positive number"),
        ({"networks": []}, "networks must be 1 to 1000 rows"),
        ({"networks": [[]]}, "must be an object"),
        ({"networks": [{"network": ["a"]}]}, "network must be one of the kit"),
        ({"networks": [{"network": "network-x"}]}, "network must be one of the kit"),
        ({"conditions": {"threads": "0"}}, "conditions.threads must be between 1 and 1024"),
        ({"conditions": {"threads": "9" * 5000}}, "conditions.'threads' must be printable"),
        ({"conditions": {"threads": "1", "cpu": "a\x1b[31m"}}, "conditions.'cpu' must be printable"),
        ({"conditions": {"threads": "1", "cpu": 3}}, "conditions.'cpu' must be printable"),
        ({"conditions": None}, "conditions must be an object"),
    ],
)
def test_a_result_that_cannot_be_is_refused_in_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as found:
        parse_result(json.dumps({**valid(), **change}).encode(), "r.json")
    assert str(found.value).startswith("r.json: must be a result of the kit: ")
    assert said in str(found.value)
    assert str(found.value).isprintable()


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"schema": 1e999}', b"[" * 100_000, b"\xff\xfe", b"{}" + b" " * 1_000_001]
)
def test_a_file_that_is_no_result_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(data)
    with pytest.raises(InputError, match=r"r.json: must be "):
        read_result(tmp_path / "r.json")
