"""Models are ranked by published accuracy within the limits, and the front is the front."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

import nas
from hw_profiles import Budget, Device, load_device
from hw_profiles.devices.facts import Fact
from hw_profiles.model_zoo.accuracies import published_accuracies
from nas.errors import InputError, NothingFitsError
from nas.model_selection.zoo_selection import SelectedModel, selection, with_front


@pytest.fixture(scope="module")
def device() -> Device:
    """One for all tests: it remembers what the zoo costs."""
    return load_device("host")


def made_up(name: str, top1: float, ms: float) -> SelectedModel:
    return SelectedModel(
        name=name, input_shape=(3, 8, 8), precision="fp32", published_top1=top1, latency_ms=ms, latency_low_ms=ms,
        latency_high_ms=ms, latency_upper_bound_ms=ms, latency_source="estimated", peak_ram_bytes=1, flash_bytes=1,
        macs=1, params=1,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_no_other_model_beats(seed: int) -> None:
    draw = random.Random(seed)
    models = [made_up(f"m{i}", draw.randint(1, 8) / 8, draw.randint(1, 8)) for i in range(30)]
    marked = with_front(models)
    for model in marked:
        beaten = any(
            other.published_top1 >= model.published_top1
            and other.latency_ms <= model.latency_ms
            and (other.published_top1, -other.latency_ms) != (model.published_top1, -model.latency_ms)
            for other in models
        )
        twins = [m for m in marked if (m.published_top1, m.latency_ms) == (model.published_top1, model.latency_ms)]
        assert model.on_front == (not beaten and model is twins[0])


def test_all_limits_hold_and_the_best_come_first(device: Device) -> None:
    found = nas.select(device, latency="20ms", ram="2MB", flash="8MB", precision="int8", top=None)
    assert len(found) > 10
    assert [m.published_top1 for m in found] == sorted((m.published_top1 for m in found), reverse=True)
    assert len({m.name for m in found}) == len(found)
    for model in found:
        assert model.latency_ms < model.latency_upper_bound_ms <= 20
        assert model.peak_ram_bytes <= 2e6
        assert model.flash_bytes <= 8e6
    assert nas.select(device, latency="20ms", ram="2MB", flash="8MB", precision="int8", top=3) == found[:3]


def test_without_limits_every_published_result_is_within(device: Device) -> None:
    found = selection(device, Budget(), "fp32")
    assert len(found.within) + len(found.left_out) >= len(published_accuracies())
    assert found.beyond == ()
    assert found.ranked[0].published_top1 == published_accuracies()[0].top1


def test_a_model_of_several_sizes_is_listed_at_the_largest_that_fits(device: Device) -> None:
    every = {m.input_shape[1]: m for m in selection(device, Budget(), "fp32").within if m.name == "resnet18.a1_in1k"}
    assert sorted(every) == [224, 288]
    between = (every[224].latency_upper_bound_ms + every[288].latency_upper_bound_ms) / 2
    for limit, size in ((between, 224), (every[288].latency_upper_bound_ms, 288)):
        ranked = selection(device, Budget(latency_ms=limit), "fp32").ranked
        assert next(m for m in ranked if m.name == "resnet18.a1_in1k").input_shape == (3, size, size)


def test_when_nothing_fits_the_change_that_is_named_is_enough_and_less_is_not(device: Device) -> None:
    with pytest.raises(NothingFitsError) as raised:
        selection(device, Budget(latency_ms=50.0, flash_bytes=1000), "int8")
    said = str(raised.value)
    assert "the binding limit is weight size" in said
    enough = float(said.rpartition("(--flash ")[2].partition("B)")[0])
    within = selection(device, Budget(latency_ms=50.0, flash_bytes=enough), "int8").within
    assert said.endswith(
        f"the model closest to meeting the limits is {within[0].name} at {within[0].input_shape[1]} pixels"
    )
    with pytest.raises(NothingFitsError):
        selection(device, Budget(latency_ms=50.0, flash_bytes=enough * 0.999), "int8")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"device": "hots"}, "did you mean 'host'"),
        ({"latency": "30"}, "latency must be a number with a unit"),
        ({"precision": "int4"}, "precision must be one of"),
        ({"energy": "2mJ"}, "energy_mj is limited, but its value is not known"),
        ({"top": 0}, "top must be at least 1"),
        ({"top": 2.5}, "top must be at least 1 .a whole number, or None for all., got 2.5"),
    ],
)
def test_wrong_input_is_told_in_one_line(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        nas.select(**{"device": "host", **wrong})  # type: ignore[arg-type]


def test_energy_is_limited_on_a_device_whose_power_is_known_and_named_where_it_is_not() -> None:
    board = load_device("raspberry-pi-4")
    every = selection(board, Budget(), "int8").within
    middle = sorted(model.costs()["energy_mj"] for model in every)[len(every) // 2]
    fewer = selection(board, Budget(energy_mj=middle), "int8")
    assert 0 < len(fewer.within) < len(every)
    for model in fewer.within:
        assert model.energy_mj is not None
        assert model.energy_mj < model.costs()["energy_mj"] <= middle


def test_the_example_of_the_board_gives_ten_records_in_its_limit() -> None:
    found = nas.select("raspberry-pi-4", latency="30ms", precision="int8", top=10)
    assert len(found) == 10
    assert all(model.latency_upper_bound_ms <= 30 and model.precision == "int8" for model in found)
    assert found[0].published_top1 > 0.74


def test_the_memory_of_a_microcontroller_is_a_limit_unless_another_is_given() -> None:
    chip = load_device("rp2040")
    ram, flash = chip.number("ram_bytes"), chip.number("flash_bytes")
    assert ram is not None
    found = selection(chip, Budget(), "int8")
    assert found.budget == Budget(peak_ram_bytes=ram, flash_bytes=flash)
    assert 0 < len(found.within) < len(found.beyond)
    assert all(model.peak_ram_bytes <= ram for model in found.within)
    external = selection(chip, Budget(peak_ram_bytes=8e6), "int8")
    assert external.budget == Budget(peak_ram_bytes=8e6, flash_bytes=flash)
    assert len(external.within) > len(found.within)
    with pytest.raises(NothingFitsError, match=r"not limited by you are those of rp2040$"):
        selection(chip, Budget(latency_ms=1.0), "int8")


def test_weights_and_activations_fit_in_the_ram_of_a_board() -> None:
    board = load_device("raspberry-pi-zero-2-w")
    ram = board.number("ram_bytes")
    assert ram is not None
    found = selection(board, Budget(), "int8")
    assert found.budget == Budget()
    assert all(model.peak_ram_bytes + model.flash_bytes <= ram for model in found.within)
    assert found.too_large
    assert all(model.peak_ram_bytes + model.flash_bytes > ram for model in found.too_large)
    assert len(found.within) + len(found.too_large) + len(found.left_out) >= len(published_accuracies())


def test_a_ram_that_holds_no_model_is_said() -> None:
    board = load_device("raspberry-pi-4")
    small = replace(board, facts={**board.facts, "ram_bytes": Fact(value=4096, source="megabytes, by mistake")})
    for budget in (Budget(), Budget(latency_ms=30.0)):
        with pytest.raises(NothingFitsError) as raised:
            selection(small, budget, "int8")
        said = str(raised.value)
        assert said.startswith("weights and activations of no model fit in the RAM of raspberry-pi-4, 4,096 bytes;")
    needed = int(said.rpartition(" takes ")[2].replace(",", ""))
    enough = replace(board, facts={**board.facts, "ram_bytes": Fact(value=needed, source="a")})
    assert len(selection(enough, Budget(), "int8").within) == 1
