"""Runs for a microcontroller: refused before training where nothing fits, and otherwise ended in a verified program."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import nas
from compress.c99.target_machines import MACHINES
from compress.quantization.int8.ptq import Quantize
from hw_profiles import load_device
from nas.commands.main import main
from nas.config import Config, load_config
from nas.errors import InputError, NothingFitsError
from nas.pipeline import run as pipeline
from nas.pipeline.job import prepare
from nas.pipeline.search_phase import check_feasible
from nas.pipeline.time_budget import Clock
from tests.optional_parts import require

ASKED = {"data": "digits", "size": 16, "device": "stm32f746", "time": "60s", "teacher": "none"}


def test_a_microcontroller_has_the_small_space_int8_and_its_own_memory() -> None:
    config = load_config(None, ASKED)
    assert config.space == "tiny"
    assert load_config(None, {**ASKED, "space": "fused"}).space == "fused"
    assert load_config(None, {"data": "digits"}).space == "mobilenet"
    job = prepare(config)
    device = load_device("stm32f746")
    assert job.asked.limits() == {
        "peak_ram_bytes": device.number("ram_bytes"),
        "flash_bytes": device.number("flash_bytes"),
    }
    smaller = prepare(load_config(None, {**ASKED, "ram": "64kB", "energy": "5mJ", "flash": "1GB"}))
    assert smaller.asked.peak_ram_bytes == 64_000
    assert smaller.asked.flash_bytes == device.number("flash_bytes")
    assert smaller.budget.latency_ms == pytest.approx(5 / (2 * 200 / 1000))  # at most 400 mW: 200 are assumed
    assert job.device.runtime == "c99"
    assert not job.measured


def test_stages_without_integers_are_refused_for_a_microcontroller() -> None:
    with pytest.raises(InputError, match="stages must hold one of int8, qat for stm32f746"):
        prepare(load_config(None, {**ASKED, "stages": "fp16"}))


def test_nothing_fits_is_told_before_anything_is_trained_with_what_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", "digits", "--device", "stm32f746", "--flash", "512kB", "--set", "size=16", "-q"]
    out = tmp_path / "run"
    assert main(["run", *options, "--ram", "2kB", "--out", str(out)]) == 3
    said = capsys.readouterr().err
    assert "the binding limit is peak RAM (at most 2,000 bytes)" in said
    assert not (out / "study.db").exists()
    ram = re.search(r"\(--ram (\d+B)\)", said)
    assert ram is not None
    asked = {"data": "digits", "device": "stm32f746", "flash": "512kB", "size": 16}
    check_feasible(prepare(load_config(None, {**asked, "ram": ram[1]})), tmp_path)
    less = f"{int(ram[1][:-1]) - 16}B"
    with pytest.raises(NothingFitsError):
        check_feasible(prepare(load_config(None, {**asked, "ram": less})), tmp_path)


def test_a_limit_on_energy_that_nothing_keeps_is_told_with_what_it_allows(tmp_path: Path) -> None:
    with pytest.raises(NothingFitsError, match=r"the limit of 0.001 mJ allows 0.0025 ms on stm32f746"):
        check_feasible(prepare(load_config(None, {**ASKED, "energy": "1uJ"})), tmp_path)


def test_a_folder_with_a_study_is_not_asked_again(tmp_path: Path) -> None:
    (tmp_path / "study.db").touch()
    check_feasible(prepare(Config(data="digits", device="rp2040", ram="1kB", trials=1)), tmp_path)


@pytest.mark.parametrize(("device", "precisions"), [
    ("stm32f746", ["int8"]), ("stm32f746", ["fp32", "int8"]), ("stm32f746", ["fp32", "fp32"]), ("host", ["fp32"]),
])  # fmt: skip
def test_what_int8_spoils_is_trained_in_integers_for_a_microcontroller(
    device: str, precisions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def stages_run(winner: Any, stages: Any, context: Any, folder: Path, **how: Any) -> Any:
        asked.append([stage.name for stage in stages])
        history = ({"rejection_reason": "accuracy drop of 3.00 points exceeds the limit of 1.00"},)
        return SimpleNamespace(precision=precisions[len(asked) - 1], history=history)

    monkeypatch.setattr(pipeline, "shielded_stages", stages_run)
    job, clock = prepare(load_config(None, {**ASKED, "device": device})), Clock(tmp_path / "plan.json", 60.0, {})
    context = cast("Any", None)
    if precisions[-1] == "fp32" and device != "host":
        with pytest.raises(NothingFitsError, match=r"supports int8 only.*3.00 points.*--max-accuracy-drop"):
            pipeline._compressed(job, context, [Quantize()], context, clock)
    else:
        found = pipeline._compressed(job, context, [Quantize()], context, clock)
        assert found.precision == precisions[-1]
    assert asked == [["int8"], ["int8", "qat"]][: len(precisions)]


@pytest.mark.slow
def test_a_run_ends_in_a_verified_program_that_keeps_the_budget(tmp_path: Path) -> None:
    require(not MACHINES["cortex-m7"].missing(), MACHINES["cortex-m7"].missing())
    limits = {"ram": "32kB", "flash": "64kB", "latency": "20ms"}
    result = nas.run(**ASKED, **limits, max_accuracy_drop=5.0, out=tmp_path / "run")
    metrics = result.metrics
    assert result.budget_met
    assert metrics["deployed"] == "model.int8.onnx"
    assert metrics["c99"]["verified_on"] == ["host", "cortex-m7"]
    assert "verified on this machine and an emulated cortex-m7" in metrics["verdict"]
    assert metrics["peak_ram_bytes"] == metrics["c99"]["arena_bytes"] + metrics["c99"]["stack_bytes"] <= 32_000
    assert metrics["flash_bytes"] <= 64_000
    assert metrics["final"]["latency_source"] == "estimated"
    assert metrics["latency_ms"] < 20
    assert (tmp_path / "run" / "c99" / "README.md").is_file()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "C99 program" in page
    final = metrics["final"]
    assert final["energy_low_mj"] < final["expected_energy_mj"] < final["energy_high_mj"]
    assert "estimated energy per inference, 90%" in page
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["c99"]["instructions"] > 10_000
