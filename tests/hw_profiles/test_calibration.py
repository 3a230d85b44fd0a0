"""A device that is corrected by five measurements, on a machine whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hw_profiles import Device, Workload, calibrate, load_device, profile
from hw_profiles.calibration import calibration_report
from hw_profiles.cost_model.features import network_features
from hw_profiles.devices.device_file import to_toml
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.runtimes.fusion import fuse
from search_spaces import list_presets, preset, sample
from tests.parameters import quick

FEW = 5
PRECISIONS = ("fp32", "int8")


@cache
def networks() -> dict[str, Workload]:
    return {name: preset(name, input_shape=(3, 96, 96)).workload() for name in list_presets() if name != "resnet8"}


def elsewhere() -> Device:
    """The table of this machine on another one, whose estimates are therefore a guess."""
    host = load_device("host")
    return replace(host, conditions={**host.conditions, "cpu": "another"})


def changed(device: Device, precision: str, factor: Callable[[str], float]) -> Device:
    """The device with each kind of kernel as many times as slow."""
    table = {
        kind: replace(cost, coefficients=tuple(linear_cost * factor(kind) for linear_cost in cost.coefficients))
        for kind, cost in device.costs[precision].items()
    }
    return replace(device, costs={**device.costs, precision: table})


def latencies(device: Device, precision: str) -> dict[str, float]:
    return {name: profile(workload, device, precision).latency_ms for name, workload in networks().items()}


def errors(device: Device, precision: str, truth: dict[str, float], names: list[str]) -> np.ndarray:
    predicted = latencies(device, precision)
    return np.array([abs(predicted[name] / truth[name] - 1) for name in names])


def measured(truth: dict[str, float], seed: int) -> tuple[dict[str, float], list[str], list[str]]:
    """Times with 3 % of noise, five networks to calibrate with, and the others."""
    draw = np.random.default_rng(seed)
    noisy = {name: ms * float(np.exp(draw.normal(0, 0.03))) for name, ms in truth.items()}
    chosen = [str(name) for name in draw.choice(sorted(truth), FEW, replace=False)]
    return noisy, chosen, [name for name in truth if name not in chosen]


@pytest.mark.parametrize("seed", quick(range(3), (0,)))
@pytest.mark.parametrize("factor", quick([2.0, 0.5], (2.0,)))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_machine_of_another_speed_is_predicted_after_five_measurements(
    precision: str, factor: float, seed: int
) -> None:
    base = elsewhere()
    truth = latencies(changed(base, precision, lambda kind: factor), precision)
    times, chosen, others = measured(truth, seed)
    device = calibrate(base, [(networks()[name], times[name]) for name in chosen], precision)
    assert np.median(errors(base, precision, times, others)) > 0.45
    assert np.median(errors(device, precision, times, others)) < 0.04
    kept = 0
    for name in others:
        before, after = (profile(networks()[name], d, precision) for d in (base, device))
        assert after.latency_high_ms / after.latency_low_ms < 0.5 * before.latency_high_ms / before.latency_low_ms
        kept += after.latency_low_ms <= times[name] <= after.latency_high_ms
    assert kept >= 0.9 * len(others)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_kind_of_kernel_that_is_slower_is_found(precision: str) -> None:
    """Networks with much and little of that kind tell it from the others; a common factor alone would fit neither."""
    base = elsewhere()
    slow = changed(base, precision, lambda kind: 8.0 if "depthwise" in kind else 1.0)
    plain, other = ([sample("fused", seed=seed).workload() for seed in seeds] for seeds in (range(4), range(4, 12)))
    mobile = list(networks().values())
    chosen, others = [*plain, *mobile[:4]], [*other, *mobile[4:]]
    device = calibrate(base, [(w, profile(w, slow, precision).latency_ms) for w in chosen], precision)
    became: dict[str, list[float]] = {}
    for features in network_features(w := networks()["mobilenetv2_100"].with_precision(precision), fuse(w)):
        before, after = (d.table(precision).total([features])[0] for d in (base, device))
        became.setdefault(features.kind.partition("/")[2].partition(".")[0], []).append(after / before)
    assert np.mean(became["depthwise"]) > 1.2 * np.mean(became["pointwise"])
    ratios = [np.log([profile(w, d, precision).latency_ms / profile(w, slow, precision).latency_ms for w in others])
              for d in (base, device)]  # fmt: skip
    after_a_common_factor, found = np.abs(ratios[0] - ratios[0].mean()), np.abs(ratios[1])
    assert found.mean() < 0.6 * after_a_common_factor.mean()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_measurements_that_no_factor_explains_widen_the_interval(precision: str) -> None:
    base, draw = elsewhere(), np.random.default_rng(0)
    truth = latencies(base, precision)
    for noise in (0.1, 0.3):
        chosen = [(networks()[name], ms * float(np.exp(draw.normal(0, noise)))) for name, ms in truth.items()]
        assert calibrate(base, chosen, precision).spread[precision] > 0.7 * noise


def test_another_precision_is_left_as_it_was() -> None:
    base = elsewhere()
    workload = networks()["mobilenetv2_100"]
    device = calibrate(base, [(workload, 3 * profile(workload, base, "int8").latency_ms)], "int8")
    assert device.costs["fp32"] == base.costs["fp32"]
    assert device.calibrated == ("int8",)
    before, after = (profile(workload, d) for d in (base, device))
    assert before == after
    assert calibrate(device, [(workload, 1.0)]).calibrated == ("int8", "fp32")
    both = calibrate(device, [(workload, 1.0)] * 2)
    assert both.source == f"{device.source}; calibrated in fp32 with 2 measurements"
    again = calibrate(device, [(workload, 1.0)], "int8")
    assert again.calibrated == ("int8",)
    assert again.source == device.source


def test_more_measurements_narrow_the_interval() -> None:
    base = elsewhere()
    truth = latencies(base, "fp32")
    widths = []
    for count in (1, 5, 15):
        device = calibrate(base, [(networks()[name], truth[name]) for name in list(truth)[:count]])
        widths.append(device.spread["fp32"])
    assert widths == sorted(widths, reverse=True)
    assert widths[2] < widths[0]


def test_a_calibrated_device_travels_as_a_file(tmp_path: Path) -> None:
    base = elsewhere()
    workload = networks()["mobilenetv2_100"]
    device = calibrate(base, [(workload, 7.0)])
    assert "calibrated in fp32 with 1 measurement" in device.source
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(device))
    one, other = profile(workload, load_device(path)), profile(workload, device)
    assert one.latency_high_ms == pytest.approx(other.latency_high_ms, rel=1e-3)


@pytest.mark.parametrize("ms", [0, -1, float("nan"), float("inf"), np.float32("nan"), 10**400, True, "5", None])
def test_what_is_no_time_is_named_and_set_aside(ms: float) -> None:
    host, network, other = load_device("host"), networks()["mobilenetv2_100"], networks()["mnasnet_100"]
    with pytest.raises(
        ValueError, match=r"at least one measurement must be a positive number, got measurement 1 \(Work"
    ):
        calibrate(host, [(network, ms)])
    found = calibration_report(host, [(network, ms), (other, 7.0)], names=("bad", "good"))
    assert found.set_aside == (f"bad: {ms!r} ms is not a positive number",)
    assert found.used == 1
    assert found.device == calibrate(host, [(other, 7.0)])


@pytest.mark.parametrize("times", [10.0, 0.1])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_ten_times_off_is_named_and_set_aside(precision: str, times: float) -> None:
    base = elsewhere()
    truth = latencies(changed(base, precision, lambda kind: 3.0 if "depthwise" in kind else 2.0), precision)
    names = list(truth)[:8]
    measured = [(networks()[name], truth[name]) for name in names]
    whole = calibration_report(base, measured, precision, names=names)
    assert whole.set_aside == ()
    spoilt = [(w, ms * (times if i == 3 else 1)) for i, (w, ms) in enumerate(measured)]
    found = calibration_report(base, spoilt, precision, names=names)
    assert [said.partition(":")[0] for said in found.set_aside] == [names[3]]
    without = calibrate(base, measured[:3] + measured[4:], precision)
    assert found.device.costs == without.costs


def test_measurements_of_the_same_network_are_one_whose_interval_is_as_wide() -> None:
    base, network, other = elsewhere(), networks()["mobilenetv2_100"], networks()["mnasnet_100"]
    once = calibrate(base, [(network, 7.0)])
    often = calibrate(base, [(network, ms) for ms in (6.9, 7.0, 7.1)] * 5)
    assert (often.costs, often.spread) == (once.costs, once.spread)
    found = calibration_report(
        base, [(network, 7.0), (other, 6.0), (network, 70.0), (network, 7.0)], names=tuple("abcd")
    )
    assert found.set_aside == ("c: 70 ms is 10 times what the other measurements suggest",)
    assert found.used == 3
    assert found.device.costs == calibrate(base, [(network, 7.0), (other, 6.0)]).costs


def test_measurements_come_in_any_kind_of_pairs_and_numbers() -> None:
    host, network = load_device("host"), networks()["mobilenetv2_100"]
    expected = calibrate(host, [(network, 7.0)])
    for given in (zip([network], [7], strict=True), [[network, np.float32(7)]], [(network, np.int64(7))]):
        assert calibrate(host, given) == expected  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="each measurement must be a model and its milliseconds, got 'resnet8'"):
        calibrate(host, {"resnet8": 7.0})  # type: ignore[arg-type]


def test_the_time_of_an_integer_file_corrects_no_float_costs(tmp_path: Path) -> None:
    workload = preset("resnet8").workload()
    (tmp_path / "m.onnx").write_bytes(write_onnx(workload, quantization=fixed_quantization(workload)))
    with pytest.raises(
        ValueError, match=r"m\.onnx is an int8 file: its latency must be given as one in int8, got fp32"
    ):
        calibrate(load_device("host"), [(tmp_path / "m.onnx", 1.0)])
    assert calibrate(load_device("host"), [(tmp_path / "m.onnx", 1.0)], "int8").calibrated == ("int8",)


def test_no_measurement_is_the_base() -> None:
    assert calibrate(load_device("host"), []) == load_device("host")


def test_more_measurements_are_better_on_a_machine_of_another_kind() -> None:
    """One whose kinds of kernels compare in another way: structure has to move, and more of it with more networks."""
    base, draw = load_device("host"), np.random.default_rng(1)
    kinds = sorted(base.costs["fp32"])
    factors = dict(zip(kinds, np.exp(draw.normal(1.0, 0.8, len(kinds))), strict=True))
    truth = latencies(changed(base, "fp32", lambda kind: factors[kind]), "fp32")
    mean = {}
    for count in (5, 15):
        each = []
        for seed in range(2):
            chosen = [str(name) for name in np.random.default_rng(seed).choice(sorted(truth), count, replace=False)]
            device = calibrate(base, [(networks()[name], truth[name]) for name in chosen])
            each.append(errors(device, "fp32", truth, [name for name in truth if name not in chosen]).mean())
        mean[count] = float(np.mean(each))
    assert mean[15] < 0.6 * mean[5] < 0.6 * 0.5


def test_kernels_of_one_kind_that_differ_by_their_sizes_are_learned_from_a_few_networks() -> None:
    """As in ONNX Runtime on a CPU without a blocked layout: the larger the window, the longer a depthwise convolution
    takes than here, so that no factor of a kind explains the times.
    """
    base, sides = load_device("host"), (64, 96, 128)
    archs = [sample("mobilenet", seed=seed, input_shape=(3, sides[seed % 3], sides[seed % 3])) for seed in range(36)]
    table = base.table("fp32")

    def elsewhere_ms(workload: Workload) -> float:
        features = network_features(workload, fuse(workload))
        costs = table.totals([[each] for each in features])
        slower = [2 * each.coordinates[3] ** 2 if "depthwise" in each.kind else 2.0 for each in features]
        return sum(factor * us for factor, (us, _) in zip(slower, costs, strict=True)) / 1000

    truth = [elsewhere_ms(arch.workload()) for arch in archs]
    device = calibrate(base, list(zip(archs[:12], truth[:12], strict=True)))
    off = [abs(profile(arch, device).latency_ms / ms - 1) for arch, ms in zip(archs[12:], truth[12:], strict=True)]
    assert np.mean(off) < 0.12


def test_what_cannot_be_used_is_said() -> None:
    host = load_device("host")
    with pytest.raises(ValueError, match=r"got gone\.onnx: -1.0 ms is not a positive number"):
        calibrate(host, [("gone.onnx", -1.0)])
    with pytest.raises(ValueError, match=r"device host has no costs in int4"):
        calibrate(host, [(networks()["mobilenetv2_100"], 1.0)], "int4")
    with pytest.raises(ValueError, match=r"device must be a Device .see load_device., got 'host'"):
        calibrate("host", [])  # type: ignore[arg-type]
