"""Device files: ours, those of users, and those of people who mean harm."""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hw_profiles import Device, list_devices, load_device, profile
from hw_profiles.cost_model.kernel_costs import KernelCost
from hw_profiles.devices.device_file import save_device, to_toml
from hw_profiles.errors import InputError
from hw_profiles.measurement.random_networks import micro_network
from search_spaces import list_presets, list_spaces, preset, sample
from tests.hw_profiles.synthetic import device_of

SMALLEST = """
schema = 4
name = "mine"
description = "one of these"
runtime = "ort"
threads = 1
channel_multiple = 16
measurable = true
source = "assumed"
calibrated = []

[conditions]
cpu = "a"

[spread]
fp32 = 0.1

[costs.fp32."call/call"]
coefficients = { start = 5.0, nodes = 0.5, nodes_past_20 = 0.0, nodes_past_60 = 0.0, nodes_past_200 = 0.0 }

[costs.fp32."fused/sum.plain"]
coefficients = { mvalues = 100 }
points = [
  [3, 5, 0.5],
]
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_file_is_the_device_that_it_says(tmp_path: Path) -> None:
    assert load_device(written(tmp_path, SMALLEST)) == Device(
        name="mine",
        description="one of these",
        runtime="ort",
        threads=1,
        channel_multiple=16,
        measurable=True,
        source="assumed",
        conditions={"cpu": "a"},
        spread={"fp32": 0.1},
        costs={
            "fp32": {
                "call/call": KernelCost(coefficients=(5.0, 0.5, 0.0, 0.0, 0.0)),
                "fused/sum.plain": KernelCost(coefficients=(100.0,), points=((3, 5),), weights=(0.5,)),
            }
        },
    )


@pytest.mark.parametrize("name", list_devices())
def test_a_device_that_is_written_is_read_back(name: str, tmp_path: Path) -> None:
    device = load_device(name)
    assert load_device(written(tmp_path, to_toml(device))) == device


def test_text_of_any_kind_survives_the_file(tmp_path: Path) -> None:
    costs = {"int8": {"call/call": KernelCost(coefficients=(1.0, 0.0, 0.0, 0.0, 0.0))}}
    device = device_of(costs, cpu='a "quoted" CPU \\ of Ångström')
    assert load_device(written(tmp_path, to_toml(device))) == device
    named = replace(device, conditions={**device.conditions, 'of "mine" = [1]': "a\x7f\n", "os.name": "b"})
    assert load_device(written(tmp_path, to_toml(named))) == named


def test_what_would_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    device, path = load_device(written(tmp_path, SMALLEST)), tmp_path / "new.toml"
    save_device(path, device)
    assert load_device(path) == device
    for changed, said in (
        ({"name": "m\x1b[31m"}, "name must be printable"),
        ({"spread": {"fp32": 11.0}}, "spread.fp32 must be a number from 0 to 10, got 11"),
        ({"conditions": {"cpu": "a\ud800"}}, "surrogates not allowed"),
    ):
        with pytest.raises(InputError, match=said):
            save_device(path, replace(device, **changed))  # type: ignore[arg-type]
    assert load_device(path) == device
    with pytest.raises(InputError, match=r"a device file must be a \.toml file"):
        save_device(tmp_path / "new", device)


def test_a_mark_in_front_of_the_text_does_no_harm(tmp_path: Path) -> None:
    assert load_device(written(tmp_path, b"\xef\xbb\xbf" + SMALLEST.encode())).name == "mine"


@pytest.mark.parametrize("name", list_devices())
def test_every_device_estimates_every_network(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    assert device.source
    many = device.runtime == "ort"  # whose kernels are of many kinds
    presets = list_presets() if many else ("resnet8", "mobilenetv3_small_050")
    networks = [preset(n) for n in presets] + [
        sample(s, seed=i) for s in list_spaces() for i in range(4 if many else 1)
    ]
    for precision in device.costs:
        for network in (*networks, *map(micro_network, range(20 if many else 2))):
            found = profile(network, device, precision)
            assert 0 < found.latency_low_ms < found.latency_ms < found.latency_high_ms


def test_devices_that_do_not_exist_and_precisions_they_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown device 'hots'; did you mean 'host'"):
        load_device("hots")
    with pytest.raises(ValueError, match=r"valid: esp32-p4, .*, host, .*, or a .toml file"):
        load_device(tmp_path)
    with pytest.raises(ValueError, match=r"device mine has no costs in int8 \(known: fp32\)"):
        profile(preset("resnet8"), load_device(written(tmp_path, SMALLEST)), "int8")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 4", "schema = 1", "schema must be 4, got 1"),
        ("schema = 4", "schema 2", "mine.toml: "),
        ("threads = 1", "", "threads is missing"),
        ("threads = 1", "threads = 0", "threads must be at least 1 and at most 1024, got 0"),
        ("threads = 1", "threads = 1000000", "threads must be at least 1 and at most 1024, got 1000000"),
        ("[3, 5, 0.5],", 1001 * "[3, 5, 0.5],\n", "points must be a list of at most 1000, got"),
        ("threads = 1", 'threads = "1"', "threads must be of type int, got '1'"),
        ("threads = 1", "threads = true", "threads must be of type int, got True"),
        ("threads = 1", "threads = 1\ncolor = 1", "unknown entry 'color'"),
        (
            'runtime = "ort"',
            'runtime = "tflite"',
            "measurable must be false for runtime tflite: only ort can be measured",
        ),
        ('"ort"', '"onnx"', "runtime must be one of ort, c99, tflite, ncnn, torch, got 'onnx'"),
        ('"mine"', '"m\\u001b[31m"', r"name must be printable, got 'm\\x1b\[31m'"),
        ("calibrated = []", 'calibrated = ["int8"]', "calibrated: precision must be one of fp32, got 'int8'"),
        ("calibrated = []", "calibrated = [[1]]", r"calibrated: precision must be one of fp32, got \[1\]"),
        ('cpu = "a"', "cpu = 1", "conditions.'cpu' must be of type str, got 1"),
        ("fp32 = 0.1", "", r"spread.fp32 is missing"),
        ("fp32 = 0.1", "fp32 = -0.1", r"spread.fp32 must be a number from 0 to 10, got -0.1"),
        ("fp32 = 0.1", "fp32 = 1e9", r"spread.fp32 must be a number from 0 to 10, got 1000000000"),
        ("fp32 = 0.1", "fp32 = 0.1\nint8 = 0.1", "spread: precision must be one of fp32, got 'int8'"),
        ("costs.fp32.", "costs.fp33.", "costs: precision must be one of fp32, int8, got 'fp33'"),
        ('costs.fp32."call/call"', 'costs.fp32."call/cell"', "costs.fp32.'call/call' is missing"),
        ("start = 5.0", "start = 0", "coefficients.start must be more than 0"),
        ("start = 5.0", "start = -5", r"'call/call'.coefficients.start must be a number from 0 to 1e\+12, got -5"),
        ("start = 5.0", "start = nan", r"coefficients.start must be a number .*, got nan"),
        ("start = 5.0", "start = inf", r"coefficients.start must be a number .*, got inf"),
        ("start = 5.0", "start = true", r"coefficients.start must be a number .*, got True"),
        ("start = 5.0", 'start = "5"', r"coefficients.start must be a number .*, got '5'"),
        ("start = 5.0", f"start = 1{400 * '0'}", r"coefficients.start must be a number .*, got 1000"),
        ("start = 5.0", f"start = 1{5000 * '0'}", "digits"),
        (
            "start = 5.0, ",
            "",
            r"'call/call'.coefficients: 'start' is missing \(needed: start, nodes, nodes_past_20, nodes_past_60, nodes_past_200\)",
        ),
        ("start = 5.0", "start = 5.0, finish = 1", "coefficients: 'finish' is unknown"),
        ("coefficients = { mvalues = 100 }", "", "'fused/sum.plain': coefficients is missing"),
        ("coefficients = { mvalues = 100 }", "coefficients = 3", "'fused/sum.plain': coefficients is missing"),
        ("points = [", "weights = [", "unknown entry 'weights'"),
        ("fused/sum.plain", "fuse/sum.plain", "the family of 'fuse/sum.plain' must be one of call, fused"),
        ("[3, 5, 0.5],", "[3],", r"'fused/sum.plain'.points: each must be 3 numbers, got \[3\]"),
        ("[3, 5, 0.5],", "[3, 4, 5, 6],", r"points: each must be 3 numbers, got \[3, 4, 5, 6\]"),
        ("[3, 5, 0.5],", "[3, nan],", r"points: each must be 3 numbers, got \[3, nan\]"),
        ("[3, 5, 0.5],", '[3, 5, "a"],', r"points: each must be 3 numbers, got \[3, 5, 'a'\]"),
        ("[3, 5, 0.5],", "[3, 5, 1e300],", "points: each must be 3 numbers"),
        ('source = "assumed"', 'source = "a"\nreference_ms = 0', "reference_ms must be more than 0"),
        ('source = "assumed"', 'source = "a"\nreference_ms = "1"', "reference_ms must be a number from 0"),
        ("[\n  [3, 5, 0.5],\n]", "3", "points must be a list of at most 1000, got 3"),
        (SMALLEST[SMALLEST.index("[costs.") :], "[costs]\nfp32 = 3", "costs.fp32.'call/call' is missing"),
        (SMALLEST[SMALLEST.index("[costs.") :], "[costs]\n", "costs must be given in one of fp32, int8"),
    ],
)
def test_bad_entries_are_refused_by_name_in_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SMALLEST
    path = written(tmp_path, SMALLEST.replace(old, new))
    with pytest.raises(ValueError, match=said) as caught:
        load_device(path)
    assert str(caught.value).startswith(f"device file {path}: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (SMALLEST.encode() + b"# \xff", "can't decode byte 0xff"),
        (SMALLEST + "#" * 2_000_000, "the file is too large, the limit is 2000000 bytes"),
        (SMALLEST + "a" + ".a" * 50_000 + " = 1", "a line must have at most 40 dots"),
        ("a = " + "[" * 100_000, "brackets are nested too deeply"),
        ("a = " + "{a=" * 100_000, "brackets are nested too deeply"),
    ],
    ids=["bytes", "size", "dots", "brackets", "braces"],
)
def test_harm_is_refused_at_once(tmp_path: Path, data: str | bytes, said: str) -> None:
    path = written(tmp_path, data)
    start = time.process_time()
    with pytest.raises(ValueError, match=said):
        load_device(path)
    assert time.process_time() - start < 2


def test_a_file_of_schema_3_is_read_with_the_names_of_today(tmp_path: Path) -> None:
    old = SMALLEST.replace("schema = 4", "schema = 3").replace("coefficients = {", "prices = {")
    for before, now in (("throng", "nodes_past_200"), ("crowd", "nodes_past_60"), ("few", "nodes_past_20")):
        old = old.replace(now, before)
    assert "throng" in old
    assert load_device(written(tmp_path, old)) == load_device(written(tmp_path, SMALLEST))
    both = old.replace("prices = { mvalues = 100 }", "prices = { mvalues = 100 }\ncoefficients = { mvalues = 1 }")
    with pytest.raises(ValueError, match="unknown entry 'prices'"):
        load_device(written(tmp_path, both))


def test_a_device_that_was_used_can_be_sent_to_another_process() -> None:
    device = load_device("host")
    profile(preset("resnet8"), device, "int8")
    again = pickle.loads(pickle.dumps(device))
    assert again == device
    assert profile(preset("resnet8"), again, "int8") == profile(preset("resnet8"), device, "int8")
