"""What is decided by the plan of a run: which stages and teachers are worth their time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from compress import Quantize
from compress.training.loop import Recipe
from hw_profiles import Budget, load_device
from nas.config import Config
from nas.pipeline import planning
from nas.pipeline.job import Job, prepare
from nas.pipeline.teacher import FEWEST_EPOCHS, auto_teacher_macs, may_be_trained, prepare_teacher
from nas.pipeline.time_budget import Clock
from nas.pipeline.time_plan import TimePlan, seconds_after_training, time_plan
from search_spaces.presets import preset


@pytest.fixture(scope="module")
def job() -> Job:
    return prepare(Config(data="digits", latency="1ms", latency_from="estimated", time="10min"))


def test_a_limit_of_energy_is_one_of_latency_at_the_highest_published_power() -> None:
    power = load_device("stm32l4r5").facts["active_power_mw"]
    asked = {"data": "digits", "device": "stm32l4r5", "energy": "2mJ", "trials": 2}
    found = prepare(Config(**asked)).budget
    assert found.limits() == {"latency_ms": pytest.approx(2000 / power.high)}
    assert prepare(Config(**asked, latency="1ms")).budget == Budget(latency_ms=1.0)
    assert prepare(Config(**asked, latency="1s", ram="9kB")).budget.latency_ms == found.latency_ms


def plan_of(speed: float, seconds: float = 600) -> TimePlan:
    return time_plan(seconds, 10, 1438, {"resnet8 at 32 px": speed})


@pytest.mark.parametrize(
    ("in_float", "in_int8", "tried"), [(0.5, 0.6, False), (0.5, 0.51, True), (1.2, 1.4, True), (0.5, 0.3, True)]
)
def test_int8_is_left_out_where_it_is_slower_and_not_needed(
    job: Job, monkeypatch: pytest.MonkeyPatch, in_float: float, in_int8: float, tried: bool
) -> None:
    def profile(arch: Any, device: Any, precision: str, *, measured: bool) -> Any:
        ms = in_float if precision == "fp32" else in_int8
        bounds = {"latency_low_ms": 0.95 * ms, "latency_high_ms": 1.05 * ms, "latency_upper_bound_ms": 1.05 * ms}
        return SimpleNamespace(latency_ms=ms, peak_ram_bytes=1, flash_bytes=1, **bounds)

    monkeypatch.setattr(planning, "profile", profile)
    artifact = cast("Any", SimpleNamespace(arch=preset("resnet8")))
    assert planning.pays(Quantize(), job, artifact) is tried
    assert planning.pays(cast("Any", SimpleNamespace()), job, artifact)


def test_the_winners_speed_is_timed_once_and_decides_what_is_kept(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = iter([100.0, 200.0])
    monkeypatch.setattr(planning, "training_speeds", lambda networks: {name: next(speeds) for name in networks})
    plan, clock = plan_of(1000), Clock(tmp_path / "plan.json", 600.0, {})
    for _ in range(2):
        assert planning.winner_speed(preset("resnet8"), plan, tmp_path, clock) == 100
    assert clock.reserve == seconds_after_training(1438, 100) > plan.after_seconds
    facts = planning.plan_facts(plan, Recipe(epochs=1000, seconds=143.8), 100)
    assert facts["winner_epochs"] == pytest.approx(10)
    assert facts["lines"] == list(plan.lines())


def test_a_teacher_has_a_share_where_it_sees_the_images_often_enough(job: Job, tmp_path: Path) -> None:
    macs, ours = auto_teacher_macs(32, 32), preset("resnet8", input_shape=(1, 32, 32)).workload().macs
    enough = FEWEST_EPOCHS * 1438 / (0.15 * 600) * macs / ours
    assert "teacher" in planning._shares(plan_of(1.01 * enough), job)
    shares = planning._shares(plan_of(0.9 * enough), job)
    assert "teacher" not in shares
    clock = Clock(tmp_path / "plan.json", 600.0, shares)
    found = prepare_teacher(job.config, job.data, tmp_path, clock)
    assert found.teacher is None
    assert "30 epochs of timm:resnet10t" in found.facts["why_none"]
    assert [may_be_trained(name) for name in ("auto", "timm:resnet18", "none", "t.onnx")] == [True, True, False, False]


def test_a_baseline_that_is_asked_for_weighs_as_much_as_the_winner() -> None:
    asked = prepare(Config(data="digits", time="10min", baseline="resnet8", teacher="none", latency_from="estimated"))
    shares = planning._shares(plan_of(1000), asked)
    assert shares["baseline"] == pytest.approx(shares["train"])
    assert set(shares) == {"search", "train", "baseline"}
