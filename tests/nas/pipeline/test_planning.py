"""What is decided by the plan of a run: which stages and teachers are worth their time."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import timm
import torch

from compress import Quantize
from compress.training.loop import Recipe
from compress.training.teachers import ModuleTeacher, teacher_network
from hw_profiles import load_device
from nas.config import Config
from nas.pipeline import plain_networks, planning
from nas.pipeline.job import Job, prepare
from nas.pipeline.teacher import auto_teacher, may_be_trained, prepare_teacher
from nas.pipeline.time_budget import Clock
from nas.pipeline.time_plan import OF_THE_SPACE, TimePlan, seconds_after_training, time_plan
from nas.pipeline.training_speed import TrainingPace, teacher_speed
from search_spaces.model import build_model
from search_spaces.presets import preset
from search_spaces.trained_weights.weights_file import file_of_weights


@pytest.fixture(scope="module")
def job() -> Job:
    return prepare(Config(data="digits", latency="1ms", latency_from="estimated", time="10min"))


def test_a_limit_of_energy_is_one_of_latency_at_the_highest_published_power() -> None:
    power = load_device("stm32l4r5").facts["active_power_mw"]
    asked = {"data": "digits", "device": "stm32l4r5", "energy": "2mJ", "trials": 2}
    found = prepare(Config(**asked)).budget
    assert found.latency_ms == pytest.approx(2000 / power.high)
    assert found.energy_mj is None
    assert prepare(Config(**asked, latency="1ms")).budget.latency_ms == 1.0
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
        assert planning.winner_pace(preset("resnet8"), plan, job, clock, None) == TrainingPace(network=100)
    assert clock.reserve == seconds_after_training(1438, 100) > plan.after_seconds
    facts = planning.plan_facts(plan, Recipe(epochs=1000, seconds=143.8), TrainingPace(network=100))
    assert facts["winner_epochs"] == pytest.approx(10)
    assert facts["lines"] == list(plan.lines())


def test_a_slow_teacher_is_asked_about_fewer_versions_and_its_time_is_planned(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "training_speeds", lambda networks: dict.fromkeys(networks, 1000.0))
    monkeypatch.setattr(planning, "teacher_speed", lambda teacher, arch: 100.0)
    plan, clock, arch = plan_of(1000), Clock(tmp_path / "plan.json", 600.0, {}), preset("resnet8")
    for _ in range(2):
        pace = planning.winner_pace(arch, plan, job, clock, lambda pixels: pixels)
        assert pace == TrainingPace(network=1000, teacher=100)
    seconds = 4.1 * 4 * plan.images / 100
    recipe = planning.winner_recipe(Recipe(epochs=1000), arch, replace(plan, train_seconds=seconds), pace)
    assert recipe.views == 4
    facts = planning.plan_facts(plan, replace(recipe, seconds=seconds), pace)
    assert facts["winner_epochs"] == pytest.approx((seconds - 4 * plan.images / 100) * 1000 / plan.images)
    assert planning.plan_facts(plan, replace(recipe, seconds=1.0), pace)["winner_epochs"] < 1000 / plan.images


def test_the_teachers_speed_is_timed_at_the_networks_resolution(job: Job) -> None:
    teacher = ModuleTeacher(build_model(preset("resnet8", input_shape=(1, 32, 32))), job.data.preprocessing)
    small, large = (teacher_speed(teacher, preset("resnet8", input_shape=(1, side, side))) for side in (16, 128))
    assert small > 2 * large > 0  # 64 times the work


def test_few_images_seen_often_are_augmented_strongly_at_the_full_rate() -> None:
    recipe, arch, plan = Recipe(learning_rate=0.1), preset("resnet8"), plan_of(1000)
    slow = 59 * plan.images / plan.train_seconds
    assert planning.winner_recipe(recipe, arch, plan, TrainingPace(network=slow)) == Recipe(learning_rate=0.4)
    found = planning.winner_recipe(recipe, arch, plan, TrainingPace(network=1.02 * 60 / 59 * slow))
    assert found == Recipe(learning_rate=0.4, augmentation="strong")
    pretrained = replace(arch, weights=Path("weights.safetensors"))
    assert planning.winner_recipe(recipe, pretrained, plan, TrainingPace(network=1000)) == recipe
    many = replace(plan, images=10_000)
    assert planning.winner_recipe(recipe, arch, many, TrainingPace(network=1e6)) == recipe


def test_a_teacher_has_a_share_where_it_sees_the_images_often_enough(job: Job, tmp_path: Path) -> None:
    macs, ours = job.auto_teacher().macs, preset("resnet8", input_shape=(1, 32, 32)).workload().macs
    enough = 30 * 1438 / (0.15 * 600) * macs / ours
    assert "teacher" in planning._shares(plan_of(1.01 * enough), job)
    shares = planning._shares(plan_of(0.9 * enough), job)
    assert "teacher" not in shares
    clock = Clock(tmp_path / "plan.json", 600.0, shares)
    found = prepare_teacher(job.config, job.auto_teacher(), job.data, tmp_path, clock)
    assert found.teacher is None
    assert "to train timm:resnet10t for the 30 epochs that it needs" in found.facts["why_none"]
    assert [may_be_trained(name) for name in ("auto", "timm:resnet18", "none", "t.onnx")] == [True, True, False, False]


def test_weights_that_a_run_starts_from_are_its_teacher(job: Job, tmp_path: Path) -> None:
    name, shape = "mobilenetv2_050", (1, 64, 64)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(file_of_weights(name, timm.create_model(name).state_dict()))
    teacher = auto_teacher(job.data, name, weights)
    assert teacher.fewest_epochs == 15
    assert teacher.macs == preset(name, input_shape=shape, num_classes=10).workload().macs
    model = teacher_network(teacher.network, job.data)
    assert model(torch.zeros(2, *job.data.preprocessing.input_shape)).shape == (2, 10)
    assert auto_teacher(job.data, None, None).name == "timm:resnet10t"


@pytest.mark.parametrize(
    ("init", "weights", "timed"),
    [
        (None, None, {"plain"}),
        ("auto", None, {"plain"}),
        ("auto", Path("w.pth"), {"plain", OF_THE_SPACE}),
        ("timm:mobilenetv2_100", Path("w.pth"), {OF_THE_SPACE}),
    ],
)
def test_known_networks_are_compared_unless_weights_are_named(
    job: Job, monkeypatch: pytest.MonkeyPatch, init: str | None, weights: Path | None, timed: set[str]
) -> None:
    monkeypatch.setattr(planning, "plain_networks", lambda job, seconds: {"plain": 500.0})
    monkeypatch.setattr(planning, "training_speeds", lambda networks: dict.fromkeys(networks, 100.0))
    asked = replace(job, config=replace(job.config, init=init), init=weights)
    assert set(planning._speeds(asked, 60)) == timed


def test_the_family_of_the_weights_is_not_compared_without_them(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_networks, "training_speeds", lambda networks: dict.fromkeys(networks, 1e6))
    wide = replace(job, data=job.data.resized(64, 64))
    families = {re.split(r"[_ ]", name)[0] for name in plain_networks.plain_networks(wide, 600)}
    assert families == {"resnet8", "mobilenetv2", "mobilenetv3"}
    start = replace(wide, init_facts={"preset": "mobilenetv2_100"})
    left = {re.split(r"[_ ]", name)[0] for name in plain_networks.plain_networks(start, 600)}
    assert left == {"resnet8", "mobilenetv3"}


def test_a_baseline_that_is_asked_for_weighs_as_much_as_the_winner() -> None:
    asked = prepare(Config(data="digits", time="10min", baseline="resnet8", teacher="none", latency_from="estimated"))
    shares = planning._shares(plan_of(1000), asked)
    assert shares["baseline"] == pytest.approx(shares["train"])
    assert set(shares) == {"search", "train", "baseline"}
