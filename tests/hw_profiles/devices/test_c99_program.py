"""A microcontroller with the costs of our C99 programs: held against counts under emulation and compiled sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compress.c99.target_machines import MACHINES
from hw_profiles import Device, calibrate, list_devices, load_device, profile
from hw_profiles.cost_model.c99_instructions import code_of
from hw_profiles.cost_model.features import LAYER_KINDS
from hw_profiles.devices.c99_program import (
    deployed_precisions,
    microseconds_of_instruction,
    processor_of,
    runs_c99,
    with_c99_costs,
)
from hw_profiles.devices.footprint import flash_bytes
from hw_profiles.errors import InputError
from hw_profiles.latency.energy import energy
from hw_profiles.runtimes.fusion import fuse
from search_spaces import preset, sample

LINES = Path(__file__).parents[3] / "docs" / "benchmarks"
BOARDS = [name for name in list_devices() if runs_c99(load_device(name))]


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (LINES / f"{name}.jsonl").read_text().splitlines()]


def board(name: str) -> Device:
    return with_c99_costs(load_device(name))


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_estimates_our_program_with_an_honest_interval(name: str) -> None:
    device = board(name)
    assert set(device.costs["int8"]) == {"call/call", *(f"layer/{kind}" for kind in LAYER_KINDS)}
    found = profile(preset("resnet8"), device, "int8")
    assert found.latency_high_ms >= 1.99 * found.latency_ms
    assert found.energy_mj is not None
    assert found.energy_high_mj is not None
    assert found.energy_high_mj >= 1.99 * found.energy_mj
    assert 49_152 + 3824 <= found.peak_ram_bytes <= 49_152 + 3824 + 768  # the arena of the program and its stack
    assert "no board" in str(device.facts["measured_with"].value)
    assert device.held_out == {}
    processor = processor_of(device)
    assert (processor in MACHINES) == (code_of(processor) != "portable")


def test_all_shipped_microcontrollers_are_boards() -> None:
    assert {"stm32f746", "stm32l4r5", "rp2040", "nrf52840", "esp32-s3", "esp32-p4", "stm32n6"} <= set(BOARDS)
    assert not {"host", "raspberry-pi-4", "x86-64-vnni"} & set(BOARDS)


@pytest.mark.parametrize(("name", "core"), [("stm32l4r5", "cortex-m4 dsp"), ("stm32f746", "cortex-m7 dsp")])
def test_instructions_are_those_that_were_counted(name: str, core: str) -> None:
    """Networks that were counted by another benchmark, whose layers are not in the fit."""
    device = board(name)
    counted = {line["case"]: line for line in lines("c99") if line["case"].startswith("instructions:")}
    assert len(counted) >= 4
    for case, line in counted.items():
        network, _, side = case.removeprefix("instructions:").partition("@")
        classes = 1000 if side == "144" else 10
        arch = preset(network, input_shape=(3, int(side), int(side)), num_classes=classes)
        ms = profile(arch, device, "int8").latency_ms
        expected = line["per_mac"][core]["instructions"] * microseconds_of_instruction(device) / 1000
        assert ms == pytest.approx(expected, rel=0.2), case


def test_latency_follows_the_clock_and_energy_the_latency() -> None:
    slow, fast = board("nrf52840"), board("stm32l4r5")  # one core at 64 and 120 MHz
    a, b = (profile(preset("resnet8"), device, "int8") for device in (slow, fast))
    assert a.latency_ms / b.latency_ms == pytest.approx(120 / 64)
    found = energy(slow, a.latency_ms, a.latency_low_ms, a.latency_high_ms)
    assert found is not None
    assert found.mj == pytest.approx(20.0 * a.latency_ms / 1000)


def test_flash_is_what_the_compiler_makes_or_a_little_more() -> None:
    device = board("stm32f746")
    compiled = [line for line in lines("c99") if line["case"] in ("tiny", "mobilenet", "fused")][:60]
    assert len(compiled) == 60
    for line in compiled:
        workload = sample(line["case"], seed=line["seed"]).workload().with_precision("int8")
        real = line["code_bytes"] + line["constant_bytes"]
        estimate = flash_bytes(workload, fuse(workload, "c99"), device)
        assert real <= estimate <= 1.1 * real + 4096, (line["case"], line["seed"])


def test_costs_that_were_measured_with_our_programs_stay() -> None:
    base = board("stm32l4r5")
    mine = calibrate(base, [(preset("resnet8"), 2 * profile(preset("resnet8"), base, "int8").latency_ms)], "int8")
    assert with_c99_costs(mine).costs["int8"] == mine.costs["int8"]
    assert profile(preset("resnet8"), mine, "int8").latency_ms > profile(preset("resnet8"), base, "int8").latency_ms
    other = calibrate(load_device("stm32l4r5"), [(preset("resnet8"), 1.0)], "int8")  # in X-CUBE-AI
    assert with_c99_costs(other).costs["int8"] == base.costs["int8"]


def test_a_board_deploys_int8_alone() -> None:
    assert deployed_precisions(board("rp2040")) == ("int8",)
    assert deployed_precisions(load_device("rp2040")) == ("fp32", "int8")  # as its own runtime may
    with pytest.raises(InputError, match="host cannot run C99 programs: its device file lacks c99_processor"):
        with_c99_costs(load_device("host"))
