"""``nas init`` and ``nas doctor``."""

from __future__ import annotations

import json
import os
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nas.commands.main import main
from nas.commands.setup import doctor, installation_checks
from nas.commands.setup.doctor import check_lines
from nas.commands.setup.installation_checks import State
from nas.commands.setup.machine_probes import LatencyProbe, TrainingProbe, probe_latency, probe_training
from nas.commands.setup.settings_file import settings_text
from nas.config import Config, load_config, settings


def test_the_file_of_init_has_every_setting_and_changes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my.toml"
    assert main(["init", str(path)]) == 0
    assert f"nas run {path}" in capsys.readouterr().out
    assert load_config(path) == load_config()
    stated = tomllib.loads(uncommented(path.read_text()))
    assert list(stated) == list(settings())
    default = Config()
    assert {name: stated[name] for name in stated if getattr(default, name) is not None} == {
        name: getattr(default, name) for name in stated if getattr(default, name) is not None
    }
    assert load_config(None, stated)  # the examples are valid, too


def uncommented(text: str) -> str:
    return "\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# "))


def test_settings_that_init_is_given_are_in_force() -> None:
    text = settings_text({"latency": "5ms", "train_epochs": 3})
    assert tomllib.loads(text) == {"latency": "5ms", "train_epochs": 3}
    assert list(tomllib.loads(uncommented(text))) == list(settings())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["my.toml"], "already exists"),
        (["new.toml", "--latency", "5"], "latency must be a number with a unit"),
        (["new.toml", "--set", "epoch=1"], "unknown setting 'epoch'"),
        (["nowhere/new.toml"], "there is no folder 'nowhere'"),
    ],
)
def test_init_refuses(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.toml").write_text("seed = 1")
    assert main(["init", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert Path("my.toml").read_text() == "seed = 1"
    assert not Path("new.toml").exists()


def test_init_overwrites_with_force(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("seed = 1")
    assert main(["init", str(tmp_path / "my.toml"), "--force"]) == 0
    assert load_config(tmp_path / "my.toml").seed == 0


GOOD = {
    "training": TrainingProbe(torch="2", threads=2, instructions=("avx512_vnni",), step_ms={"resnet8": (20.0, 10.0)}),
    "latency": LatencyProbe(onnxruntime="1", fp32_ms=2.0, int8_ms=1.0, spread=0.02),
}


def pretend(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
    """Have the probes return these values, or raise them, without a process."""

    def shielded(function: Any, *args: Any, what: str) -> Any:
        answer = (GOOD | answers)["training" if function is probe_training else "latency"]
        answer = answer(*args) if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(doctor, "run_shielded", shielded)


def found_by_doctor(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, str]]]:
    code = main(["doctor", "--json"])
    return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)}


def test_doctor_shows_a_machine_on_which_a_run_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch)
    code, found = found_by_doctor(capsys)
    assert code == 0
    assert found["training step"]["state"] == found["noise"]["state"] == found["required packages"]["state"] == "ok"
    assert found["int8 instructions"]["found"] == "AVX-512 VNNI"
    assert "resnet8 2.0x" in found["bfloat16"]["found"]
    assert "2.0x speedup" in found["ONNX Runtime"]["found"]


def test_doctor_says_what_is_missing_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, latency=LatencyProbe(onnxruntime="1", fp32_ms=1.0, int8_ms=2.0, spread=0.5))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(installation_checks, "available_bytes", lambda: 10**9)
    assert main(["doctor"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "missing C compiler" in out
    assert "To get it: install gcc binutils (Debian's names)" in out
    assert "this machine is very noisy" in out
    assert "free memory: a training process takes 1 GB and more" in out


def test_doctor_fails_where_packages_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch)
    wanted = ["numpy>=99", "no-such-package>=1", "torch>=2", 'no-such-extra>=1; extra == "ray"']
    monkeypatch.setattr(installation_checks, "requires", lambda name: wanted)
    code, found = found_by_doctor(capsys)
    assert code == 1
    assert found["required packages"]["state"] == "FAILED"
    assert "numpy must be >=99" in found["required packages"]["found"]
    assert "no-such-package is not installed" in found["required packages"]["found"]
    assert (found["extra ray"]["state"], found["extra ray"]["found"]) == ("missing", "no-such-extra is not installed")
    assert "pip install 'fitnas[ray]'" in found["extra ray"]["advice"]


def test_doctor_fails_where_the_cache_folder_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    code, found = found_by_doctor(capsys)
    assert code == 1
    assert found["cache folder"]["found"] == f"{tmp_path / 'file'} cannot be written"


def crash(channels_last: bool) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def crash_with_channels_last(channels_last: bool) -> TrainingProbe:
    if channels_last:
        crash(channels_last)
    return GOOD["training"]  # type: ignore[return-value]


def test_doctor_survives_a_training_step_that_crashes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "probe_training", crash_with_channels_last)
    monkeypatch.setattr(doctor, "_NOISE_SECONDS", 0.1)
    code, found = found_by_doctor(capsys)
    assert code == 0
    assert found["training step"]["state"] == "note"
    assert "signal 11 (segmentation fault)" in found["training step"]["found"]
    assert "channels-last" in found["training step"]["advice"]


def test_doctor_fails_where_every_training_step_crashes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "probe_training", crash)
    monkeypatch.setattr(doctor, "_latency_checks", list)
    assert main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert "failed checks: training step" in captured.err
    assert "FAILED" in captured.out


def test_the_probes_run() -> None:
    training = probe_training(channels_last=True)
    assert set(training.step_ms) == {"resnet8", "mobilenetv2_035"}
    assert all(ms > 0 for pair in training.step_ms.values() for ms in pair)
    latency = probe_latency(0.2)
    assert latency.int8_ms > 0
    assert latency.spread > 0


def test_no_line_of_the_table_steers_the_terminal() -> None:
    check = installation_checks.Check(name="a", state=State.OK, found="x\x1b[31m")
    assert "\x1b" not in "".join(check_lines([check]))
