"""Making a device file, on a machine whose costs are known and whose clock is made up."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hw_profiles import Device, Workload, load_device, profile
from hw_profiles.cost_model.kernel_costs import CostTable
from hw_profiles.devices.machine import conditions
from hw_profiles.latency.estimate import Latency
from hw_profiles.measurement import device_measurement, latency_measurement
from hw_profiles.measurement.benchmark_set import MeasuredNetworks
from hw_profiles.measurement.device_measurement import FEWEST_NETWORKS, measure_device
from hw_profiles.measurement.random_networks import is_attention, is_long, micro_network
from tests.hw_profiles.synthetic import device_of, features_of, micro_features, true_costs
from tests.parameters import slow

PRECISIONS = ("fp32", "int8")


NETWORKS = {micro_network(seed).ops: seed for seed in range(400)}


class Machine:
    """Runs a network in a second of its own clock, and says what its costs are, with 1 % of noise."""

    def __init__(self) -> None:
        self.tables = tables()
        self.now = 0.0
        self.measured: list[tuple[str, int]] = []
        self.breaks_at: int | None = None
        self.busy: frozenset[int] = frozenset()  # networks of whose first measurement something else was running
        self.draw = np.random.default_rng(0)

    def write(self, workload: Workload, *, quantization: object = None) -> Workload:
        return workload.with_precision("fp32" if quantization is None else "int8")

    def measure(self, model: Workload, threads: int, nominal: float, *, max_rounds: int) -> Latency:
        if len(self.measured) == self.breaks_at:
            raise KeyboardInterrupt
        precision = "int8" if model.formats else "fp32"
        microseconds = self.tables[precision].total(features_of(model))[0] * np.exp(self.draw.normal(0, 0.01))
        network = (precision, NETWORKS[model.ops])
        slow = network[1] in self.busy and network not in self.measured
        ms = microseconds / 1000 * (3 if slow else 1)
        self.now += 1
        self.measured.append(network)
        return Latency(ms=ms, low_ms=ms, high_ms=ms, source="measured")

    def true_ms(self, workload: Workload, precision: str) -> float:
        return self.tables[precision].total(features_of(workload.with_precision(precision)))[0] / 1000


@cache
def tables() -> dict[str, CostTable]:
    return {p: CostTable(true_costs(micro_features(p, range(300)))) for p in PRECISIONS}


@pytest.fixture
def few_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is said of how right the device is: fitting takes the third power of the number of networks."""
    monkeypatch.setattr(device_measurement, "FEWEST_NETWORKS", 10)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(device_measurement, "measure_here", made.measure)
    monkeypatch.setattr(device_measurement, "write_onnx", made.write)
    monkeypatch.setattr(device_measurement, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def median_error(device: Device, machine: Machine, precision: str) -> float:
    unseen = [micro_network(seed) for seed in range(300, 340) if not is_attention(seed)]
    ratios = [profile(w, device, precision).latency_ms / machine.true_ms(w, precision) for w in unseen]
    return float(np.median(np.abs(np.log(ratios))))


def journal(out: Path) -> Path:
    return out.with_suffix(".partial.jsonl")


@pytest.mark.slow
def test_a_device_predicts_networks_that_were_not_measured(machine: Machine, tmp_path: Path) -> None:
    out = tmp_path / "new.toml"
    device = measure_device(out, seconds=360)
    assert machine.now <= 360 + len(PRECISIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["new.toml"]
    read = load_device(out)
    assert (read.name, read.threads, read.measurable) == ("new", 1, True)
    assert set(read.costs) == set(read.spread) == set(PRECISIONS)
    assert {name: read.conditions[name] for name in conditions(1)} == conditions(1)
    for precision in PRECISIONS:
        assert median_error(read, machine, precision) < 0.05
        assert 0 < read.spread[precision] < 0.15
        one, other = (profile(micro_network(301), d, precision).latency_ms for d in (device, read))
        assert one == pytest.approx(other, rel=5e-3)


@pytest.mark.slow
def test_a_device_to_start_from_makes_few_networks_enough(machine: Machine, tmp_path: Path) -> None:
    truth = true_costs(micro_features("int8", range(300)))
    twice = {
        kind: replace(cost, coefficients=tuple(2 * each for each in cost.coefficients)) for kind, cost in truth.items()
    }
    device = measure_device(tmp_path / "new.toml", seconds=25, precisions=["int8"], prior=device_of({"int8": twice}))
    assert len(set(machine.measured)) < FEWEST_NETWORKS / 2
    assert median_error(device, machine, "int8") < 0.04
    assert device.source.endswith("random networks, from made_up")


def test_a_device_to_start_from_helps_in_its_own_precisions_only(machine: Machine, tmp_path: Path) -> None:
    costs = true_costs(micro_features("int8", range(30)))
    said = f"at least {FEWEST_NETWORKS} networks must be measured in fp32, got 2"
    with pytest.raises(ValueError, match=said):
        measure_device(tmp_path / "new.toml", seconds=60, prior=device_of({"int8": costs}))


@pytest.mark.slow
def test_the_spread_is_that_of_networks_that_were_left_out(machine: Machine, tmp_path: Path) -> None:
    """Of networks as people use them."""
    device = measure_device(tmp_path / "new.toml", seconds=250, precisions=["int8"])
    found, errors = 0, []
    unseen = [micro_network(seed) for seed in range(300, 400) if is_long(seed) and not is_attention(seed)]
    for workload in unseen:
        predicted, truth = profile(workload, device, "int8"), machine.true_ms(workload, "int8")
        found += predicted.latency_low_ms <= truth <= predicted.latency_high_ms
        errors.append(abs(np.log(predicted.latency_ms / truth)))
    assert found / len(unseen) > 0.85
    assert 1 < device.spread["int8"] * 1.645 / np.quantile(errors, 0.9) < 3  # 1 % of noise, and fewer networks


def later(number: int) -> Workload:
    """Stands for networks as people use them."""
    return micro_network(200 + number)


@pytest.mark.usefixtures("few_suffice")
@pytest.mark.slow
def test_every_second_network_is_a_typical_one_and_the_spread_is_theirs(machine: Machine, tmp_path: Path) -> None:
    measure_device(tmp_path / "mixed.toml", seconds=40, precisions=["int8"], typical=later)
    measured = [number for _, number in machine.measured]
    assert {200, 201, 202, 0, 1} <= set(measured[:8])
    assert sum(number >= 200 for number in set(measured)) == pytest.approx(len(set(measured)) / 2, abs=5)
    mixed = MeasuredNetworks(later)
    assert [mixed.is_typical(n) for n in range(4)] == [False, True, False, True]
    assert [mixed.is_float(n) for n in range(2 * 19, 2 * 19 + 2)] == [True, False]


def test_what_was_begun_with_other_networks_is_not_gone_on_with(machine: Machine, tmp_path: Path) -> None:
    machine.breaks_at = 20
    with pytest.raises(KeyboardInterrupt):
        measure_device(tmp_path / "new.toml", seconds=200)
    with pytest.raises(ValueError, match="started under different conditions"):
        measure_device(tmp_path / "new.toml", seconds=200, typical=later)
    assert len(machine.measured) == 20


@pytest.mark.slow
def test_times_that_do_not_fit_are_measured_again_and_do_no_harm(machine: Machine, tmp_path: Path) -> None:
    machine.busy = frozenset({20, 41, 61})
    assert not any(map(is_attention, machine.busy))
    device = measure_device(tmp_path / "new.toml", seconds=100, precisions=["int8"])
    again = [number for (_, number), times in Counter(machine.measured).items() if times == 3]
    assert {20, 41, 61} <= set(again)
    assert median_error(device, machine, "int8") < 0.05


@pytest.mark.slow
@pytest.mark.usefixtures("few_suffice")
def test_what_was_interrupted_goes_on_and_measures_nothing_twice(machine: Machine, tmp_path: Path) -> None:
    out = tmp_path / "folder" / "new.toml"
    machine.breaks_at = 15
    with pytest.raises(KeyboardInterrupt):
        measure_device(out, seconds=200)
    assert not out.exists()
    assert len(journal(out).read_text().splitlines()) == 1 + 15
    machine.breaks_at = None
    measure_device(out, seconds=20)
    first_pass = machine.measured[: 15 + 17]
    assert len(set(first_pass)) == len(first_pass)
    assert out.is_file()
    assert not journal(out).exists()


@pytest.mark.slow
def test_the_times_of_the_first_start_are_used(machine: Machine, tmp_path: Path) -> None:
    """All that is measured after the start is false; the device is made of what came before."""
    out = tmp_path / "new.toml"
    machine.breaks_at = 90
    with pytest.raises(KeyboardInterrupt):
        measure_device(out, seconds=200, precisions=["int8"])
    machine.breaks_at = None
    device = measure_device(out, seconds=0, precisions=["int8"])
    assert len(machine.measured) == 90
    assert median_error(device, machine, "int8") < 0.06


@pytest.mark.usefixtures("few_suffice")
@pytest.mark.parametrize("cut", [1, slow(40)])
def test_a_line_that_a_kill_cut_off_costs_that_line_only(machine: Machine, tmp_path: Path, cut: int) -> None:
    out = tmp_path / "new.toml"
    for stop in (6, 14):
        machine.breaks_at = stop
        with pytest.raises(KeyboardInterrupt):
            measure_device(out, seconds=200, precisions=["int8"])
        journal(out).write_bytes(journal(out).read_bytes()[:-cut])
    machine.breaks_at = None
    measure_device(out, seconds=20, precisions=["int8"])
    first_pass = Counter(machine.measured[: 14 + 17])
    lost = [] if cut == 1 else [machine.measured[stop - 1] for stop in (6, 14)]  # 1: the end of the line alone
    assert {key: times for key, times in first_pass.items() if times > 1} == dict.fromkeys(lost, 2)


@pytest.mark.parametrize("text", ["", "{", '{"conditions": {"cpu": "another"}}\n'])
def test_times_of_other_conditions_are_not_mixed_in(machine: Machine, tmp_path: Path, text: str) -> None:
    out = tmp_path / "new.toml"
    journal(out).write_text(text)
    with pytest.raises(
        ValueError, match=r"new.partial.jsonl was started under different conditions: delete it to start"
    ):
        measure_device(out, seconds=200)
    assert journal(out).read_text() == text
    assert machine.measured == []


def test_too_little_time_is_refused_and_what_was_measured_is_kept(machine: Machine, tmp_path: Path) -> None:
    out = tmp_path / "new.toml"
    said = rf"at least {FEWEST_NETWORKS} networks must be measured in fp32, got 5.: allow more time .*new.partial.jsonl"
    with pytest.raises(ValueError, match=said):
        measure_device(out, seconds=117)
    assert not out.exists()
    assert len(journal(out).read_text().splitlines()) == 1 + len(machine.measured)


def test_a_device_that_is_there_stays_until_the_new_one_is_whole(machine: Machine, tmp_path: Path) -> None:
    out = tmp_path / "new.toml"
    out.write_text("the old one")
    machine.breaks_at = 100
    with pytest.raises(KeyboardInterrupt):
        measure_device(out, seconds=200)
    assert out.read_text() == "the old one"


def test_what_cannot_be_is_refused_before_anything_is_measured(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a device file must be a .toml file, got '.*new.json'"):
        measure_device(tmp_path / "new.json", seconds=200)
    with pytest.raises(ValueError, match="precision must be one of fp32, int8, got 'int4'"):
        measure_device(tmp_path / "new.toml", seconds=200, precisions=["int4"])
    assert machine.measured == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_this_machine_is_measured_for_a_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_measurement, "FEWEST_NETWORKS", 8)
    monkeypatch.setattr(latency_measurement, "_NOMINAL_ROUNDS", 5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(40):  # it goes on from where it was: a busy machine needs a few times two seconds
        with suppress(ValueError):
            measure_device(tmp_path / "here.toml", seconds=2, precisions=["fp32"])
            break
    device = load_device(tmp_path / "here.toml")
    found = profile(micro_network(1), device)
    assert 0 < found.latency_low_ms <= found.latency_ms
    assert list(device.costs) == ["fp32"]
