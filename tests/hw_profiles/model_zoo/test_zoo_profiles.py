"""The estimates of the whole zoo are those of ``profile``, model by model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from hw_profiles import Device, Profile, load_device, profile
from hw_profiles.errors import InputError
from hw_profiles.model_zoo.store_networks import needed_features
from hw_profiles.model_zoo.trace_models import tasks
from hw_profiles.model_zoo.zoo_features import features_file
from hw_profiles.model_zoo.zoo_profiles import zoo_profiles

SOME = [("test_vit", 160), ("resnet10t", 176), ("mobilenetv3_small_050", 224)]
MORE = [
    ("convnext_atto", 288), ("tiny_vit_5m_224", 224), ("xcit_nano_12_p16_224", 224), ("efficientnet_b0", 224),
    ("swin_tiny_patch4_window7_224", 224), ("levit_128s", 224), ("resnet50", 176), ("densenet121", 288),
]  # fmt: skip


def assert_same(found: Profile, wanted: Profile) -> None:
    for name in ("latency_ms", "latency_low_ms", "latency_high_ms"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-9), name
    for name in ("peak_ram_bytes", "flash_bytes", "macs", "params", "weight_count", "latency_source"):
        assert getattr(found, name) == getattr(wanted, name), name
    assert found.energy_mj == (None if wanted.energy_mj is None else pytest.approx(wanted.energy_mj, rel=1e-9))


def check(networks: list[tuple[str, int]], precision: str, name_of_device: str = "host") -> None:
    device = load_device(name_of_device)
    zoo = zoo_profiles(device, precision)
    for name, size in networks:
        model = tasks()[name, size]  # with the tag of the weights: some architectures have other classes by default
        assert_same(zoo[name, size], profile(f"timm:{model}", device, precision, input_shape=(3, size, size)))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_zoo_costs_what_profile_says(precision: str) -> None:
    check(SOME, precision)


@pytest.mark.parametrize("board", ["raspberry-pi-4", "raspberry-pi-4-ncnn", "stm32h743"])
def test_the_zoo_costs_on_boards_what_profile_says(board: str) -> None:
    """One of each runtime; energy where the power is known."""
    check(SOME[:2], "int8", board)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_more_of_the_zoo_costs_what_profile_says(precision: str) -> None:
    check(MORE, precision)


def test_every_shipped_device_has_its_features_in_the_package() -> None:
    """Where they are missing they are worked out each time, which takes half a minute."""
    missing = [features_file(*key).name for key in needed_features() if not features_file(*key).is_file()]
    assert not missing, "run `python -m hw_profiles.model_zoo.store_networks`"


def without(device: Device, part: str) -> Device:
    costs = {kind: cost for kind, cost in device.costs["fp32"].items() if not kind.startswith(part)}
    return replace(device, costs={"fp32": costs})


def test_networks_that_a_device_has_no_costs_for_are_left_out_and_the_others_are_as_before() -> None:
    device = load_device("host")
    every, fewer = zoo_profiles(device), zoo_profiles(without(device, "fused/"))
    assert 0 < len(fewer) < len(every)
    assert all(math.isfinite(found.latency_ms) for found in fewer.values())
    assert fewer["test_vit", 160] == every["test_vit", 160]


def test_a_precision_that_the_device_lacks_is_named() -> None:
    with pytest.raises(InputError, match="no costs in int8"):
        zoo_profiles(without(load_device("host"), "-"), "int8")
    with pytest.raises(InputError, match="precision must be one of"):
        zoo_profiles(load_device("host"), "int3")


def test_what_is_not_stored_is_worked_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from itertools import islice

    from hw_profiles.model_zoo import zoo_features as module
    from hw_profiles.model_zoo.stored_workloads import stored_networks

    monkeypatch.setattr(module, "stored_networks", lambda: islice(stored_networks(), 3))
    monkeypatch.setattr(module, "features_file", lambda *key: tmp_path / "nothing")
    monkeypatch.setattr(module, "_REPORT_SECONDS", 0.0)
    monkeypatch.setattr(module, "_SAME_KERNELS", {})
    with caplog.at_level("INFO", "fitnas"):
        found = module.zoo_features.__wrapped__("torch", "fp32")
    assert len(found.architectures) == 3
    assert "no stored features for the runtime torch" in caplog.text
    assert "2 networks computed" in caplog.text
