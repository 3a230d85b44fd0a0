"""The program of a run for a microcontroller: written, verified where that is possible, and described."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.c99 import runtime_layers
from compress.c99.target_machines import MACHINES
from hw_profiles import load_device
from hw_profiles.devices.c99_program import microseconds_of_instruction, with_c99_costs
from nas.results import c99_project as c99_project_module
from nas.results.c99_project import c99_project, measured_values, verification_text
from search_spaces import preset
from tests.compress.c99.files import images, network_file
from tests.optional_parts import require

SHAPE = (1, 16, 16)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arch = preset("resnet8", input_shape=SHAPE, num_classes=3)
    return network_file(tmp_path_factory.mktemp("file") / "model.int8.onnx", arch)


def test_a_cortex_m_is_emulated_and_its_sizes_are_those_of_the_compiler(file: Path, tmp_path: Path) -> None:
    require(not MACHINES["cortex-m4"].missing(), MACHINES["cortex-m4"].missing())
    device = with_c99_costs(load_device("stm32l4r5"))
    found = c99_project(file, tmp_path / "c99", images(SHAPE, 4), device)
    assert found["verified"]
    assert found["verified_on"] == ["host", "cortex-m4"]
    assert found["peak_ram_bytes"] == found["arena_bytes"] + found["stack_bytes"]
    assert found["flash_bytes"] == found["code_bytes"] + found["constant_bytes"]
    assert found["latency_ms"] == pytest.approx(found["instructions"] * microseconds_of_instruction(device) / 1000)
    assert found["latency_low_ms"] < found["latency_ms"] < found["latency_high_ms"]
    assert measured_values(found)["flash_bytes"] == found["flash_bytes"]
    assert verification_text(found).endswith("verified on this machine and an emulated cortex-m4")
    readme = (tmp_path / "c99" / "README.md").read_text()
    for told in (
        "**verified**",
        "## On stm32l4r5",
        f"Flash: {found['flash_bytes']:,} bytes",
        "It has not been run on hardware",
    ):
        assert told in readme
    json.dumps(found)


def test_a_processor_without_emulator_is_verified_here_and_that_is_said(file: Path, tmp_path: Path) -> None:
    found = c99_project(file, tmp_path / "c99", images(SHAPE, 2), with_c99_costs(load_device("esp32-s3")))
    assert found["verified_on"] == ["host"]
    assert measured_values(found) == {}  # what the planner and the cost model said stays
    assert "verified on this machine only (not run on xtensa-lx7" in verification_text(found)
    assert "not available" in (tmp_path / "c99" / "README.md").read_text()


def test_a_board_with_measured_latencies_is_said_to_have_them() -> None:
    device = replace(with_c99_costs(load_device("stm32l4r5")), calibrated=("int8",))
    sizes = dict.fromkeys(("peak_ram_bytes", "arena_bytes", "stack_bytes", "flash_bytes", "code_bytes"), 1000)
    said = c99_project_module._board_section({**sizes, "constant_bytes": 1000}, device)
    assert "estimated from latencies that were measured on the board" in said
    assert "not available" not in said


def test_a_program_that_computes_something_else_is_not_called_verified(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = with_c99_costs(load_device("esp32-s3"))
    outputs = runtime_layers._outputs

    def negated(*given: Any, optimized: bool) -> Any:
        """As if ONNX Runtime put every image into another class."""
        return -outputs(*given, optimized=optimized)

    monkeypatch.setattr(runtime_layers, "_outputs", negated)
    found = c99_project(file, tmp_path / "c99", images(SHAPE, 2), device)
    assert not found["verified"]
    assert found["verified_on"] == []
    assert "NOT verified: 100.0% of the images" in verification_text(found)
