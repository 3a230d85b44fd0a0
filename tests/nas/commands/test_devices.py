"""``nas devices``: listing, showing, and measuring this machine."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles import list_devices, load_device, profile
from hw_profiles.cost_model.fit import Observation
from hw_profiles.devices.device_file import to_toml
from hw_profiles.latency.estimate import Latency
from hw_profiles.measurement.random_networks import micro_network
from nas.commands.latency_table import read_latencies
from nas.commands.main import main
from nas.commands.output.text_table import short
from search_spaces import preset

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Measuring that takes next to no time, and a fit that is not one; the number of measurements as they come."""
    calls: list[int] = []

    def measure_here(model: bytes, threads: int, nominal: float, *, max_rounds: int) -> Latency:
        calls.append(threads)
        time.sleep(0.005)
        return Latency(ms=0.1, low_ms=0.09, high_ms=0.11, source="measured", raw_ms=0.1)

    def errors(observations: Sequence[Observation]) -> Any:
        return np.full(len(observations), 0.1)

    monkeypatch.setattr("hw_profiles.measurement.device_measurement.measure_here", measure_here)
    monkeypatch.setattr("nas.commands.benchmark_networks.space_network", micro_network)  # quickly made
    monkeypatch.setattr("hw_profiles.measurement.device_measurement.write_onnx", lambda workload, quantization: b"")
    monkeypatch.setattr(
        "hw_profiles.measurement.device_measurement.fit", lambda observations: load_device("host").costs["fp32"]
    )
    monkeypatch.setattr("hw_profiles.measurement.device_measurement.cross_validated_errors", errors)
    return calls


def measure(out: Path, *arguments: str) -> int:
    """From nothing: to correct the costs of another device takes time."""
    return main(["devices", "measure", "--out", str(out), "--precision", "fp32", "--base", "none", *arguments])


def test_the_list_names_every_device_and_what_is_known_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices"]) == 0
    text = capsys.readouterr().out
    assert main(["devices", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [device["name"] for device in found] == list_devices()
    for facts in found:
        device = load_device(facts["name"])
        assert facts["precisions"] == list(device.costs)
        assert facts["conditions"] == dict(device.conditions)
        [line] = [line for line in text.splitlines() if line.split()[:1] == [device.name]]
        assert device.runtime in line.split()
        assert max(map(len, text.splitlines())) <= 80
        for name, unit in (("ram_bytes", "B"), ("flash_bytes", "B")):
            if (fact := device.facts.get(name)) is not None:
                assert f"{'~' if fact.assumed else ''}{short(fact.value)}{unit}" in line.split()


@pytest.mark.parametrize("holds", [True, False])
def test_whether_the_conditions_hold_here_is_said(
    holds: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hw_profiles.devices.machine import conditions

    stated = conditions(1) | ({} if holds else {"cpu": "Another 9000"})
    (tmp_path / "my.toml").write_text(to_toml(replace(load_device("host"), conditions=stated)))
    assert main(["devices", "show", str(tmp_path / "my.toml")]) == 0
    text = capsys.readouterr().out
    assert ("this machine matches the measurement conditions" in text) == holds
    assert ("`nas devices measure --out FILE.toml`" in text) != holds
    assert main(["devices", "show", str(tmp_path / "my.toml"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["measured_on_this_machine"] is holds
    assert facts["deviation"]["fp32"] >= (0 if holds else math.log(2) / 1.645 - 0.001)  # a factor of two either way


@pytest.mark.parametrize("name", ["raspberry-pi-4", "stm32f746", "esp32-s3"])
def test_show_prints_every_fact_with_its_source_and_what_estimates_missed(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    device = load_device(name)
    assert main(["devices", "show", name]) == 0
    lines = capsys.readouterr().out.replace("\n" + " " * 15, " ").splitlines()  # long facts take several
    for fact_name, fact in device.facts.items():
        [line] = [line for line in lines if line.split()[:1] == [fact_name]]
        assert line.endswith(f"[{fact.source}]")
    for held_out in device.held_out.values():
        assert any(f"mean {100 * held_out.mean_error:.1f}% on {held_out.networks}" in line for line in lines)
    assert bool(device.held_out) != ("no published latency" in device.source)


def test_a_table_of_latencies_makes_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, table, out = load_device("raspberry-pi-4"), tmp_path / "mine.csv", tmp_path / "mine.toml"
    names = ("resnet8", "mobilenetv2_035", "mobilenetv1_100", "mobilenetv3_small_100", "mnasnet_100")
    rows = [f"{name},{3 * profile(preset(name), base, 'int8').latency_ms},int8" for name in names]
    table.write_text(
        "\n".join(["model,latency_ms,precision", *rows, "mobilenetv2_100,broken,int8", "mnasnet_050,1e5,int8"])
    )
    assert main(["devices", "calibrate", "--base", base.name, "--from", str(table), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "not used     mobilenetv2_100: 'broken' ms is not a positive number" in text
    assert "not used     mnasnet_050: 100000 ms is" in text
    device = load_device(out)
    assert device.calibrated == ("int8",)
    assert (device.name, device.facts) == ("mine", base.facts)
    other = preset("mobilenetv2_140")
    before, after = (profile(other, each, "int8").latency_ms for each in (base, device))
    assert after == pytest.approx(3 * before, rel=0.05)
    assert device.costs["fp32"] == base.costs["fp32"]
    assert main(["devices", "calibrate", "--base", base.name, "--from", str(table), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["used"], len(found["set_aside"]), found["file"]) == (5, 2, str(out))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            "network,latency_ms\na,1",
            "column 'model' is missing (needed: model, latency_ms; got: ['network', 'latency_ms'])",
        ),
        ("model,latency_ms\n", "must have 1 to 10000 rows, got 0"),
        ("model,latency_ms,precision\nresnet8,1,fp16", "line 2: precision must be one of fp32, int8, got 'fp16'"),
        ("model,latency_ms\nresnet8,0", "at least one measurement must be a positive number, got resnet8: 0.0 ms"),
        ("model,latency_ms\nresnet8,\udcff", "must be a CSV file in UTF-8"),
        (
            "model,latency_ms\nresnet8,12,5",
            "line 2: must have at most 2 values, as the first line has, got 'resnet8,12,5' (decimal commas need",
        ),
        (
            "model;latency_ms\nresnet8;12;5",
            "line 2: must have at most 2 values, as the first line has, got 'resnet8;12;5'",
        ),
        ("model,latency_ms\n,12", "line 2: the model is missing"),
        ("model,latency_ms\n\nresnet9,12", "line 3: unknown model 'resnet9'; did you mean 'resnet8'?"),
        ("model,latency_ms\nresnet8,1e300", "out.toml cannot be written: "),
    ],
)
def test_a_table_that_cannot_be_used_is_told_in_one_line(
    table: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(table.encode(errors="surrogateescape"))
    out = tmp_path / "out.toml"
    assert main(["devices", "calibrate", "--base", "host", "--from", str(path), "--out", str(out)]) == 2
    text, err = capsys.readouterr()
    assert (text, err.count("\n"), out.exists()) == ("", 1, False)
    assert said in err


@pytest.mark.parametrize(
    "table",
    [
        "\ufeffModel;Latency_ms;Precision\r\nresnet8;0,9;INT8\r\n;;\r\n\r\nmobilenetv2_035; 4,1 ;\r\n",
        "model\tdate\tlatency_ms\tprecision\nresnet8\tMonday\t0.9\tint8\nmobilenetv2_035\t\t4.1\t\t\n",
        "model, latency_ms, precision\nresnet8, .9, int8\nmobilenetv2_035,4.1\n",
        "model,latency_ms,precision\rresnet8,0.9,int8\rmobilenetv2_035,4.1,",
    ],
    ids=["semicolons", "tabs", "spaces", "old ends of lines"],
)
def test_tables_of_spreadsheets_are_read(table: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(table.encode())
    rows = [(row.model, row.latency_ms, row.precision) for row in read_latencies(path)]
    assert rows == [("resnet8", 0.9, "int8"), ("mobilenetv2_035", 4.1, "fp32")]


def test_a_table_makes_no_device_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody says which machine its latencies are of; what was not measured there is the guess that it is."""
    table, out = tmp_path / "t.csv", tmp_path / "mine.toml"
    table.write_text("model,latency_ms\nresnet8,1.5\n")
    assert main(["devices", "calibrate", "--base", "host", "--from", str(table), "--out", str(out)]) == 0
    assert "is not this device; latency is always estimated" in capsys.readouterr().out
    device = load_device(out)
    assert (device.measurable, device.conditions, device.reference_ms) == (False, {}, None)
    assert device.costs["int8"] == load_device("host").costs["int8"]
    found = profile(preset("resnet8"), device, "int8")
    assert found.latency_high_ms >= 1.99 * found.latency_ms


def test_show_prints_the_kernel_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "show", "host"]) == 0
    text = capsys.readouterr().out
    assert main(["devices", "show", "host", "--json"]) == 0
    costs = json.loads(capsys.readouterr().out)["costs"]
    cost = load_device("host").costs["fp32"]["conv/conv.blocked"]
    shown = costs["fp32"]["conv/conv.blocked"]
    assert list(shown["coefficients"].values()) == list(cost.coefficients)
    assert shown["points"] == len(cost.points)
    row = next(line for line in text.splitlines() if line.startswith("conv.blocked "))
    assert [float(value) for value in row.split()[1:]] == pytest.approx(list(cost.coefficients), rel=5e-3, abs=5e-4)


def test_text_of_a_foreign_file_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host, path = load_device("host"), tmp_path / "my.toml"
    path.write_text(to_toml(replace(host, description="red \x1b[31m\nname")))
    assert main(["devices", "show", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "description must be printable" in err
    assert err.rstrip("\n").isprintable()
    path.write_text(to_toml(replace(host, conditions={"cpu": "red \x1b[31m\nname"})))
    assert main(["devices", "show", str(path)]) == 0
    out = capsys.readouterr().out
    assert "cpu red �[31m�name" in out
    assert all(line.isprintable() for line in out.splitlines())


@pytest.mark.slow
def test_a_measured_device_estimates_networks(
    tmp_path: Path, fast: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my.toml"
    assert measure(out, "--time", "2s") == 0
    text, log = capsys.readouterr()
    assert set(fast) == {1}
    assert f"nas profile resnet8 --device {out}" in text
    assert f"nas devices measure: {load_device(out).source.split()[3]} random networks" in text
    assert "6.1% (fp32)" in text  # an error of 10 % is at the 90th of a hundred: 0.1 / 1.645
    assert re.search(r"nas: fp32: \d+ networks, median cross-validation error 10.0 %", log)
    assert os.listdir(tmp_path) == ["my.toml"]  # noqa: PTH208
    assert main(["profile", "resnet8", "--device", str(out)]) == 0
    assert main(["profile", "resnet8", "--device", str(out), "--precision", "int8"]) == 2
    assert "no costs in int8" in capsys.readouterr().err


def test_an_interrupted_measurement_tells_how_to_go_on_and_repeats_nothing(
    tmp_path: Path, fast: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, journal = tmp_path / "my.toml", tmp_path / "my.partial.jsonl"

    def interrupted(model: bytes, threads: int, nominal: float, *, max_rounds: int) -> Latency:
        if len(fast) == 3:
            raise KeyboardInterrupt
        fast.append(threads)
        return Latency(ms=7.0, low_ms=6.0, high_ms=8.0, source="measured")

    with monkeypatch.context() as patched:
        patched.setattr("hw_profiles.measurement.device_measurement.measure_here", interrupted)
        assert measure(out, "--time", "2s") == 130
    assert (
        f"To resume, run: nas devices measure --out {out} --precision fp32 --base none --time 2s"
        in capsys.readouterr().err
    )
    assert [json.loads(line)["microseconds"] for line in journal.read_text().splitlines()[1:]] == [7000.0] * 3
    assert not out.exists()
    assert measure(out, "--time", "2s", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    first, repeats = int(facts["source"].split()[3]), 2 * math.ceil(0.05 * int(facts["source"].split()[3]))
    assert first <= len(fast) <= first + repeats  # three before, and none of them in the first pass again
    assert facts["file"] == str(out)
    assert not journal.exists()


def test_real_times_that_are_too_few_are_kept_for_the_next_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, journal = tmp_path / "my.toml", tmp_path / "my.partial.jsonl"
    assert measure(out, "--time", "1s") == 2
    assert f"allow more time (rerun the same command to resume from {journal})" in capsys.readouterr().err
    times = [json.loads(line)["microseconds"] for line in journal.read_text().splitlines()[1:]]
    assert times
    assert all(1 < time < 1e6 for time in times)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["measure"], "--out is required: the device file to write, e.g. --out my.toml"),
        (["measure", "--out", "my.json"], "--out must be a .toml file, got 'my.json'"),
        (["measure", "--out", "."], "--out must be a .toml file, got the folder '.'"),
        (["measure", "--out", "my.toml", "--time", "10"], "time must be a number with a unit (s, min, h)"),
        (["measure", "--out", "my.toml", "--time", "-10s"], "time must be above 0, got '-10s'"),
        (["measure", "--out", "my.toml", "--threads", "0"], "--threads must be between 1 and 1024, got 0"),
        (["measure", "--out", "my.toml", "--precision", "fp16"], "precision must be one of fp32, int8, got 'fp16'"),
        (["calibrate", "--out", "my.toml"], "--base and --from are required: the device to start from"),
        (["calibrate", "--base", "host", "--from", "a.csv"], "--out is required"),
        (["calibrate", "--base", "host", "--from", "a.csv", "--out", "my"], "--out must be a .toml file, got 'my'"),
        (
            ["calibrate", "--base", "host", "--from", "a.csv", "--out", "my.toml"],
            "--from: file not found: a.csv",
        ),
        (["show", "hosst"], "unknown device 'hosst'; did you mean 'host'?"),
        (["show", "STM32F746"], "unknown device 'STM32F746'; did you mean 'stm32f746'?"),
        (["show", f"{'a' * 300}.toml"], 50 * "a"),
        (["show", "gone.toml"], "device file not found: gone.toml"),
        (["measure", "--out", "my.toml", "--ssh-config", "broken.toml"], "--ssh-config requires --ssh"),
        (["show", "broken.toml"], "device file broken.toml: "),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("schema = ")
    assert main(["devices", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["broken.toml"]


def test_showing_a_device_loads_no_torch() -> None:
    code = (
        "import sys; from nas.commands.main import main; main(['devices', 'show', 'host']); "
        "sys.exit(bool({'torch', 'timm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False).returncode == 0
