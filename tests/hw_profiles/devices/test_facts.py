"""Facts of the devices that ship, and of files that others write."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from hw_profiles import list_devices, load_device, profile
from hw_profiles.devices.device_file import to_toml
from hw_profiles.devices.facts import ASSUMED, FACTS, Fact
from hw_profiles.latency.energy import energy_upper_bound_mj, latency_limit_ms
from search_spaces import preset

OTHERS = [name for name in list_devices() if name != "host"]
BOARDS = ("stm32f412", "stm32l4r5", "stm32f746", "stm32h743", "stm32h747", "stm32u575", "stm32n6", "esp32-s3", "esp32-p4",
          "rp2040", "rp2350", "nrf52840", "nrf5340", "ra8d1")  # fmt: skip
COMPUTERS = ("x86-64-vnni", "raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-zero-2-w",
             "phone-mid-range", "phone-recent", "jetson-nano", "jetson-orin-nano")  # fmt: skip


def test_the_devices_that_the_issue_asks_for_ship() -> None:
    assert {*BOARDS, *COMPUTERS} <= set(list_devices())


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_says_what_a_budget_needs(name: str) -> None:
    device = load_device(name)
    assert "int8" in device.costs
    assert {"core", "clock_mhz", "ram_bytes", "flash_bytes", "active_power_mw"} <= set(device.facts)
    assert (device.number("ram_bytes") or 0) >= 250_000


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_assumed_is_at_least_a_factor_of_two_either_way(name: str) -> None:
    device = load_device(name)
    for fact in device.facts.values():
        if fact.assumed and not isinstance(fact.value, str):
            assert fact.deviation >= math.log(2) - 1e-9
    found = profile(preset("resnet8"), device, "int8" if "int8" in device.costs else "fp32")
    if "no published latency" in device.source:
        assert found.latency_high_ms >= 1.99 * found.latency_ms
    assert found.energy_mj is not None
    power = device.facts["active_power_mw"]
    assert found.energy_mj == pytest.approx(found.latency_ms * power.value / 1000)
    assert found.energy_high_mj / found.energy_mj >= (2 if power.assumed else found.latency_high_ms / found.latency_ms)


def test_energy_is_that_of_a_published_measurement() -> None:
    """MLPerf Tiny v1.2, closed, STMicroelectronics: ResNet-8 on the STM32L4R5 by X-CUBE-AI 9.0 takes 6.919 mJ."""
    found = profile(preset("resnet8"), load_device("stm32l4r5"), "int8")
    assert found.energy_low_mj < 6.919 < found.energy_high_mj


def test_a_borrowed_device_holds_a_published_latency_in_its_interval() -> None:
    """TinyEngine's table: MobileNetV2 of width 0.3 at 64 pixels takes X-CUBE-AI 7.3 29 ms on the STM32H743 at 480 MHz;
    no device that ships was fitted to it.
    """
    network = preset("mobilenetv2_035", input_shape=(3, 64, 64))
    found = profile(network, load_device("stm32h743"), "int8")
    published = 29 * network.workload().macs / 5_782_144  # that network is a little smaller
    assert found.latency_low_ms < published < found.latency_high_ms


def test_a_device_without_power_says_no_energy() -> None:
    found = profile(preset("resnet8"), load_device("host"))
    assert (found.energy_mj, found.energy_low_mj, found.energy_high_mj) == (None, None, None)
    assert energy_upper_bound_mj(load_device("host"), 1.0) is None
    assert latency_limit_ms(load_device("host"), 1.0) is None


def test_facts_survive_the_file(tmp_path: Path) -> None:
    facts = {
        "core": Fact(value='a "core" of Ångström', source="a page", note="half"),
        "clock_mhz": Fact(value=100.0, source=ASSUMED),
        "active_power_mw": Fact(value=5.0, source="a table", low=4.0, high=7.5),
    }
    device = replace(load_device("stm32l4r5"), facts=facts)
    (tmp_path / "mine.toml").write_text(to_toml(device))
    assert load_device(tmp_path / "mine.toml") == device


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("[facts.color]\nvalue = 1\nsource = 'a'", "facts: unknown entry 'color'"),
        ("[facts.clock_mzh]\nvalue = 1\nsource = 'a'", "did you mean 'clock_mhz'"),
        ("[facts.clock_mhz]\nvalue = 1", "facts.clock_mhz.source is missing"),
        ("[facts.clock_mhz]\nvalue = 'fast'\nsource = 'a'", "facts.clock_mhz.value must be a number"),
        ("[facts.clock_mhz]\nvalue = nan\nsource = 'a'", "facts.clock_mhz.value must be a number"),
        ("[facts.clock_mhz]\nvalue = 0\nsource = 'a'", "facts.clock_mhz.value must be more than 0, got 0"),
        ("[facts.ram_bytes]\nvalue = 1.5\nsource = 'a'", "facts.ram_bytes.value must be a whole number, got 1.5"),
        ("[facts.core]\nvalue = 3\nsource = 'a'", "facts.core.value must be printable text, got 3"),
        ("[facts.core]\nvalue = 'a'\nsource = \"\\u001b[31m\"", "facts.core.source must be printable text"),
        ("[facts.core]\nvalue = 'a'\nsource = ''", "a fact must have a printable value, source and note"),
        ("[facts.core]\nvalue = 'a'\nsource = 'b'\nsize = 1", "facts.core: unknown entry 'size'"),
        ("[facts]\ncore = 'a'", "facts.core must be a table, got 'a'"),
        ("[held_out.int4]\nnetworks = 1", "held_out: precision must be one of fp32, int8, got 'int4'"),
        ("[held_out.int8]\nnetworks = 1", "held_out.int8.families is missing"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(added: str, said: str, tmp_path: Path) -> None:
    device = replace(load_device("x86-64-vnni"), facts={}, held_out={})
    text = to_toml(device).partition("\n[costs.")[0].replace("calibrated = []", 'calibrated = []\ncosts = "host"')
    (tmp_path / "mine.toml").write_text(f"{text}\n{added}\n")
    with pytest.raises(ValueError, match=r"device file .*mine.toml: ") as caught:
        load_device(tmp_path / "mine.toml")
    assert said in str(caught.value)


def test_costs_may_be_those_of_a_device_of_ours(tmp_path: Path) -> None:
    assert load_device("x86-64-vnni").costs == load_device("host").costs
    text = to_toml(replace(load_device("x86-64-vnni"), facts={})).partition("\n[costs.")[0]
    for name, said in (
        ("hots", "costs must be a table or one of"),
        ("x86-64-vnni", "of a device with costs of its own"),
    ):
        (tmp_path / "mine.toml").write_text(text.replace("calibrated = []", f'calibrated = []\ncosts = "{name}"'))
        with pytest.raises(ValueError, match=said):
            load_device(tmp_path / "mine.toml")


def test_every_fact_that_ships_is_of_a_known_kind() -> None:
    for name in list_devices():
        for fact_name, fact in load_device(name).facts.items():
            assert isinstance(fact.value, str) == (FACTS[fact_name] is str)
