"""``nas devices kit``, ``check``, ``measure --ssh`` and ``calibrate --from result.json``."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from hw_profiles import load_device
from hw_profiles.device_kit import kit_files, machine_check
from hw_profiles.device_kit.kit_networks import kit_digest, kit_names
from nas.commands.main import main
from tests.hw_profiles.device_kit.other_machine import Clock, kit_result, other_machine
from tests.hw_profiles.device_kit.ssh_server import NAME, ssh_server

FEW = 4


@pytest.fixture
def few_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit_files, "kit_names", lambda: kit_names()[:FEW])


def written_result(path: Path) -> Path:
    found = kit_result(other_machine({"": 2.0}), names=kit_names()[:8], cpu="Another 9000")
    rows = [{"network": t.network, "precision": t.precision, "latency_ms": t.latency_ms} for t in found.times]
    content: dict[str, Any] = {
        "schema": 1, "kit": kit_digest(), "runtime": "ort", "reference_ms": 0.1, "conditions": dict(found.conditions),
        "networks": rows,
    }  # fmt: skip
    path.write_text(json.dumps(content))
    return path


@pytest.mark.usefixtures("few_networks")
def test_the_kit_is_written_and_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "kit", "--out", str(tmp_path / "kit")]) == 0
    text = capsys.readouterr().out
    assert "python3 measure.py" in text
    command = text.rpartition("and run here: nas ")[2]
    assert shlex.split(command)[:2] == ["devices", "calibrate"]
    assert len(list((tmp_path / "kit").glob("*.onnx"))) == 2 * FEW + 1
    assert main(["devices", "kit", "--out", str(tmp_path / "kit")]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert main(["devices", "kit", "--out", str(tmp_path / "board"), "--board", "--json"]) == 0
    assert "board_port.c" in json.loads(capsys.readouterr().out)["files"]


def test_a_result_makes_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, out = written_result(tmp_path / "result.json"), tmp_path / "mine.toml"
    command = ["devices", "calibrate", "--from", str(result), "--out", str(out), "--base"]
    assert main([*command, "raspberry-pi-4"]) == 0
    text = capsys.readouterr().out
    assert "mean leave-one-out error" in text
    device = load_device(out)
    assert (device.name, device.runtime, list(device.costs)) == ("mine", "ort", ["fp32", "int8"])
    assert device.facts["ram_bytes"] == load_device("raspberry-pi-4").facts["ram_bytes"]
    assert "measured_with" not in device.facts  # which is TensorFlow Lite
    assert device.conditions["cpu"] == "Another 9000"
    assert main([*command, "host", "--runtime", "ncnn"]) == 2
    assert "--runtime must be that of" in capsys.readouterr().err
    assert main([*command, "stm32f746"]) == 2
    assert "device stm32f746 has no runtime 'ort' (valid: c99, tflite)" in capsys.readouterr().err


def test_the_runtime_of_a_table_picks_the_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("model,latency_ms\nresnet8,1.5\n")
    command = ["devices", "calibrate", "--base", "raspberry-pi-4", "--from", str(tmp_path / "t.csv")]
    out = tmp_path / "mine.toml"
    assert main([*command, "--out", str(out), "--runtime", "ncnn"]) == 0
    assert load_device(out).runtime == "ncnn"
    assert load_device(out).costs["int8"] == load_device("raspberry-pi-4-ncnn").costs["int8"]
    assert main([*command, "--out", str(out), "--runtime", "torch"]) == 0
    assert load_device(out).runtime == "torch"
    assert main([*command, "--out", str(out), "--runtime", "cmsis"]) == 2
    assert "has no runtime 'cmsis' (valid: ort, c99, tflite, ncnn, torch)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.0, "estimates of host match this machine"), (1.6, "estimates of host do NOT match this machine")],
)
def test_a_check_is_a_table_with_a_verdict(
    factor: float, verdict: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(other_machine({"": factor}))
    monkeypatch.setattr(machine_check, "measure_here", clock.measure)
    monkeypatch.setattr(machine_check, "kit_file", clock.file)
    assert main(["devices", "check"]) == 0
    text = capsys.readouterr().out
    assert f"the {verdict}" in text
    assert text.count("network-") == len(clock.measured)
    assert main(["devices", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["holds"] is (factor == 1.0)
    assert main(["devices", "check", "raspberry-pi-4"]) == 2
    assert "raspberry-pi-4 cannot be measured on this machine" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("few_networks")
def test_another_machine_is_measured_by_ssh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ssh_server(tmp_path / "ssh") as server:
        out = tmp_path / "box.toml"
        options = ["--ssh-config", str(server.config), "--remote-python", sys.executable, "--precision", "fp32"]
        assert main(["devices", "measure", "--ssh", NAME, "--out", str(out), *options]) == 0
        text, log = capsys.readouterr()
        assert list(server.temporary.iterdir()) == []
    assert f"{FEW} of {FEW}: " in log
    assert "to use it: nas profile resnet8 --device" in text
    device = load_device(out)
    assert (device.name, device.measurable, list(device.costs)) == ("box", False, ["fp32"])
    assert len(json.loads(out.with_suffix(".result.json").read_text())["networks"]) == FEW
    assert {path.name for path in tmp_path.iterdir()} == {"ssh", "box.toml", "box.result.json"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kit"], "--out is required: the folder to write"),
        (["measure", "--out", "a.toml", "--ssh", "-oProxyCommand=x"], "--ssh must be user@host"),
        (["measure", "--out", "a.toml", "--ssh", "a", "--ssh-config", "no"], "--ssh-config must be a file"),
        (["measure", "--out", "a.toml", "--ssh", "a", "--precision", "fp16"], "precision must be one of fp32, int8"),
        (["measure", "--out", "a.toml", "--base", "hots"], "unknown device 'hots'; did you mean 'host'?"),
        (["calibrate", "--base", "host", "--from", "no.json", "--out", "a.toml"], "no.json: cannot be read"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    joined = [f"--ssh={arguments[4]}" if a == "--ssh" else a for a in arguments if a != "-oProxyCommand=x"]
    assert main(["devices", *(joined if "-oProxyCommand=x" in arguments else arguments)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert list(tmp_path.iterdir()) == []
