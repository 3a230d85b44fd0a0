"""What a run can afford in its time."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest

from compress.training.recipe import Recipe
from hw_profiles.budget import violations
from hw_profiles.errors import InputError
from nas.config import Config
from nas.engine.candidate_evaluation import CandidateCost
from nas.pipeline import plain_networks as module
from nas.pipeline import search_phase
from nas.pipeline.job import Job, prepare
from nas.pipeline.plain_networks import network_named, plain_networks
from nas.pipeline.pretrained_start import likely_part
from nas.pipeline.time_budget import Clock
from nas.pipeline.time_plan import (
    OF_THE_SPACE,
    ONE_NETWORK,
    SMALL_SEARCH,
    WIDE_SEARCH,
    TimePlan,
    search_plan,
    time_plan,
)
from nas.results.search_gain import search_gain
from nas.results.twice_the_time import gain_of_twice_the_time
from search_spaces.arch import Arch
from search_spaces.presets import preset
from search_spaces.registry import load_space
from search_spaces.scaled import scaled
from search_spaces.space import NETWORK, SEARCHED, Space, SpaceWithPresets

HANDS = 1651  # images, in 12 minutes at 700 a second


def hands(seconds: float = 720, speed: float = 700) -> TimePlan:
    return time_plan(seconds, 20, HANDS, {"a": speed, "b": speed / 2, "c": speed / 4})


def test_what_is_shipped_gets_more_than_half_of_the_time() -> None:
    for seconds in (180, 720, 3600, 36_000):
        plan = hands(seconds)
        assert plan.train_seconds > 0.5 * seconds
        searched = plan.candidates * plan.candidate_seconds
        assert 20 + searched + plan.train_seconds + plan.after_seconds <= seconds
        assert plan.epochs == pytest.approx(plan.train_seconds * 700 / HANDS)


def test_more_time_makes_a_wider_search_and_too_little_none() -> None:
    kinds = [hands(seconds).kind for seconds in (75, 720, 14_400)]
    assert kinds == [ONE_NETWORK, SMALL_SEARCH, WIDE_SEARCH]
    assert hands(720).candidates >= 10
    assert hands(14_400).candidates > 30
    slow = hands(720, speed=20)  # candidates would not even see each image once
    assert slow.kind == ONE_NETWORK


def test_known_networks_are_a_quarter_of_the_candidates_at_most() -> None:
    assert hands(720).presets() == ("a", "b", "c")
    assert len(hands(720, speed=120).presets()) == 2
    assert len(hands(720, speed=20).presets()) == hands(720, speed=20).candidates


def test_too_short_for_anything_is_refused_with_the_least_time() -> None:
    with pytest.raises(InputError, match=r"training on 1,651 images on this machine takes at least (\d+)s") as error:
        hands(40)
    least = int(str(error.value).split("at least ")[1].split("s")[0])
    assert hands(least + 1).train_seconds > 0
    with pytest.raises(InputError):
        hands(least - 2)


def test_a_plan_is_kept_as_it_was() -> None:
    plan = hands()
    assert TimePlan.from_json(plan.to_json()) == plan
    assert len(plan.lines()) == 3
    assert "a, 700 images/s; b, 350 images/s" in plan.lines()[0]


def test_a_search_alone_gets_the_whole_time_and_says_how_often_candidates_see_the_images() -> None:
    plan = search_plan(600, 20, HANDS, {OF_THE_SPACE: 700})
    assert plan.candidates * plan.candidate_seconds <= 570
    assert plan.candidates >= 20
    assert plan.epochs == pytest.approx(plan.candidate_seconds * 700 / HANDS)
    each = f"each candidate is trained for {plan.candidate_seconds:.0f} s (up to {plan.epochs:.1f} epochs"
    assert plan.lines()[2].startswith(each)
    short = search_plan(600, 20, HANDS, {OF_THE_SPACE: 700}, longest=2)
    assert short.epochs == pytest.approx(2)
    assert short.candidates > plan.candidates
    estimated = search_plan(600, 20, HANDS, {OF_THE_SPACE: 700}, longest=2, measured=False)
    assert estimated.candidates == int(570 / (estimated.candidate_seconds + 0.1)) > short.candidates
    slow = search_plan(600, 20, HANDS, {OF_THE_SPACE: 20})
    assert plan.candidate_seconds < slow.candidate_seconds <= 60  # longer, so that networks can be told apart
    with pytest.raises(
        InputError, match=r"--time 20s is too short: training on 1,651 images on this machine takes at least 23s"
    ):
        search_plan(20, 10, HANDS, {})


def test_many_images_are_seen_as_often_by_every_candidate_that_can_be_trained_often_enough() -> None:
    plan = time_plan(650, 20, 45_000, {"a": 1800})
    assert plan.candidate_epochs == pytest.approx(20 * plan.candidate_seconds / plan.train_seconds)
    assert plan.candidate_epochs > 30_000 / 45_000
    long = time_plan(36_000, 20, 45_000, {"a": 1800})
    assert long.candidate_epochs == pytest.approx(30_000 / 45_000)  # with fewer, candidates cannot be ranked
    alone = search_plan(1200, 20, 45_000, {OF_THE_SPACE: 900})
    assert alone.candidate_epochs == alone.epochs
    assert hands().candidate_epochs == search_plan(1200, 20, 45_000, {}).candidate_epochs == math.inf


@pytest.mark.parametrize(("images", "epochs"), [(45_000, 45 / 60), (HANDS, 8)])
def test_a_search_trains_candidates_as_often_as_its_plan_says(
    job: Job, images: int, epochs: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = list[Recipe]()

    def search_candidates(job: Job, recipe: Recipe, *_: Any, **__: Any) -> optuna.Study:
        recipes.append(recipe)
        return optuna.create_study()

    monkeypatch.setattr(search_phase, "search_candidates", search_candidates)
    monkeypatch.setattr(search_phase, "leading_trials", lambda study: [])
    plan = replace(hands(), images=images, candidate_seconds=45, train_seconds=1200)
    config = replace(job.config, workers=1)
    clock = Clock(tmp_path / "plan.json", 900.0, {"search": 1.0})
    search_phase.searched_study(replace(job, config=config), tmp_path, clock, plan)
    assert [(each.epochs, each.seconds) for each in recipes] == [(pytest.approx(epochs), 45)]


def test_where_no_known_network_fits_there_is_a_search_all_the_same() -> None:
    plan = time_plan(720, 20, HANDS, {})
    assert (plan.kind, plan.presets()) == (SMALL_SEARCH, ())
    assert "training throughput: unknown" in plan.lines()[0]
    of_the_space = time_plan(720, 20, HANDS, {OF_THE_SPACE: 300.0})
    assert (of_the_space.kind, of_the_space.presets()) == (SMALL_SEARCH, ())
    assert of_the_space.candidate_seconds == pytest.approx(2 * HANDS / 300)


@pytest.fixture
def job() -> Job:
    return prepare(Config(data="digits", latency="1ms", latency_from="estimated", time="10min"))


def timed_by_macs(networks: Any) -> dict[str, float]:
    return {name: 1e9 / arch.workload().macs for name, arch in networks.items()}


def test_plain_networks_keep_the_limits_and_see_the_images_often(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "training_speeds", timed_by_macs)
    images, cost, limits = len(job.data.train), CandidateCost(job.device, {}, measured=False), job.search_limits()
    speeds = plain_networks(job, 600)
    assert "resnet8 at 32 px" in speeds
    for name, speed in speeds.items():
        costs = cost(network_named(name, job))
        assert all(value <= 0 for value in violations(costs, limits).values())
        assert speed * 600 >= 20 * images
    one = plain_networks(job, 1e-3)
    assert len(one) == 1
    assert one == timed_by_macs({name: network_named(name, job) for name in one})


def test_networks_that_crash_or_break_the_limits_are_none(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "training_speeds", lambda networks: {})
    assert plain_networks(job, 60) == {}
    tight = prepare(Config(data="digits", flash="1kB", latency_from="estimated", time="10min"))
    monkeypatch.setattr(module, "training_speeds", timed_by_macs)
    assert plain_networks(tight, 60) == {}


def test_known_networks_come_first_and_are_candidates_like_others(job: Job) -> None:
    resnet8 = preset("resnet8", input_shape=(1, 32, 32), num_classes=10)
    searching = job.trying_first({"resnet8 at 32 px": resnet8}, [], alone=False)
    assert searching.warm_start == [{NETWORK: "resnet8 at 32 px"}]
    assert searching.space(optuna.trial.FixedTrial({NETWORK: "resnet8 at 32 px"})) == resnet8
    assert searching.space.build({NETWORK: "resnet8 at 32 px"}) == resnet8
    assert searching.config.trials is None
    assert job.trying_first({"r": resnet8}, [], alone=True).config.trials == 1
    some = job.space.sample_params(3)
    both = job.trying_first({"r": resnet8}, [some], alone=False)
    assert both.warm_start == [{NETWORK: SEARCHED, **some}, {NETWORK: "r"}]
    assert both.space.build(both.warm_start[0]) == job.space.build(some)
    assert list(both.known_networks()) == [resnet8]
    assert not job.known_networks()
    alone = job.trying_first({}, [some], alone=True)
    assert (alone.space, alone.warm_start, alone.config.trials) == (job.space, [some], 1)
    assert job.trying_first({}, [], alone=True) == job


def test_a_space_with_known_networks_asks_for_no_choice_that_is_of_no_use() -> None:
    space = load_space("tiny", input_shape=(1, 32, 32), num_classes=10)
    both = SpaceWithPresets(space=space, presets={"resnet8": preset("resnet8", input_shape=(1, 32, 32))})
    asked: list[str] = []

    def suggest(name: str, choices: Any) -> Any:
        asked.append(name)
        return "resnet8" if name == NETWORK else choices[0]

    both(cast("Any", SimpleNamespace(suggest_categorical=suggest)))
    assert asked == [NETWORK]
    assert set(both.choices) == {NETWORK, *space.choices}
    assert both.sample(3) == space.sample(3)


def test_a_network_that_is_shipped_learns_from_the_validation_images(job: Job) -> None:
    shipped = job.for_shipping().data
    assert len(shipped.train) == len(job.data.train) + len(job.data.val)
    assert (shipped.val, shipped.test) == (job.data.val, job.data.test)
    assert (shipped.train.images[len(job.data.train) :] == job.data.val.images).all()
    assert shipped.facts["trained_on_validation"] is True


def trial(network: str, accuracy: float) -> optuna.trial.FrozenTrial:
    distribution = optuna.distributions.CategoricalDistribution((SEARCHED, "resnet8", "mobilenetv2_035"))
    return optuna.trial.create_trial(params={NETWORK: network}, distributions={NETWORK: distribution}, value=accuracy)


def test_the_best_known_network_stands_beside_the_best_that_was_searched() -> None:
    study = optuna.create_study(direction="maximize")
    study.set_user_attr("objectives", ["accuracy"])
    assert search_gain(study, 100) is None
    for each in (trial("resnet8", 0.5), trial("mobilenetv2_035", 0.6), trial(SEARCHED, 0.9), trial(SEARCHED, 0.7)):
        study.add_trial(each)
    found = search_gain(study, 100)
    assert found is not None
    assert (found["known"]["network"], found["searched"]["val_accuracy"]) == ("mobilenetv2_035", 0.9)
    assert found["candidates"] == {"known": 2, "searched": 2}
    assert found["known"]["val_accuracy_high"] < found["searched"]["val_accuracy_low"]


def test_twice_the_time_halves_nothing_where_nothing_got_better() -> None:
    assert gain_of_twice_the_time((10, 0.9), (100, 0.9), 100) == 0.0
    assert gain_of_twice_the_time((10, 0.9), (5, 0.95), 100) == 0.0
    # An error that falls as 1 / time is halved.
    assert gain_of_twice_the_time((10, 0.5), (100, 0.95), 10**9) == pytest.approx(2.5, abs=1e-3)


def test_the_folder_keeps_the_plan(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from nas.pipeline import planning
    from nas.pipeline.time_budget import Clock

    caplog.set_level("INFO", "fitnas")
    monkeypatch.setattr(planning, "package_at_hand", lambda: "weights 1.0")
    monkeypatch.setattr(planning, "plain_networks", lambda job, seconds: {"resnet8 at 32 px": 1000.0})
    clock = Clock(tmp_path / "plan.json", 600.0, {})
    plan, searching = planning.planned(job, tmp_path, clock)
    assert plan is not None
    assert "ImageNet weights found (weights 1.0); use --init auto to start from them" in caplog.text
    assert searching.warm_start == [{NETWORK: "resnet8 at 32 px"}]
    assert clock.reserve == plan.after_seconds
    assert clock.weights["train"] > clock.weights["search"]
    assert "baseline" not in clock.weights
    monkeypatch.setattr(planning, "plain_networks", lambda job, seconds: {"resnet8 at 16 px": 1.0})
    again, _ = planning.planned(job, tmp_path, Clock(tmp_path / "plan.json", 600.0, {}))
    assert again == plan
    untimed = prepare(Config(data="digits", trials=3))
    assert planning.planned(untimed, tmp_path, Clock(tmp_path / "x.json", None, {})) == (None, untimed)


def test_what_the_timing_takes_is_planned_with(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.pipeline import planning
    from nas.pipeline.time_budget import Clock

    clock = Clock(tmp_path / "plan.json", 600.0, {})

    def slow(job: Job, seconds: float) -> dict[str, float]:
        clock.spent_before += 560
        return {"resnet8 at 32 px": 1000.0}

    monkeypatch.setattr(planning, "plain_networks", slow)
    plan, _ = planning.planned(job, tmp_path, clock)
    assert plan is not None
    assert plan.train_seconds < 40


def test_the_part_of_a_pretrained_network_that_is_tried_first_fits_and_sees_the_images_often(job: Job) -> None:
    whole = preset("mobilenetv2_100", input_shape=(1, 96, 96), num_classes=10)

    def build(params: Any) -> Arch:
        side = params["resolution"]
        return replace(scaled(whole, width=params["width"], depth=params["depth"]), input_shape=(1, side, side))

    choices: dict[str, Any] = {"resolution": (96, 64), "width": (1.0, 0.5), "depth": (1.0, 0.3)}
    start = replace(job, space=Space(name="parts", choices=choices, build=build), init=Path("weights.pth"))
    timed = build({"resolution": 64, "width": 0.5, "depth": 0.3})
    enough = 20 * len(job.data.train) / 100 * build({"resolution": 96, "width": 1.0, "depth": 1.0}).workload().macs
    seconds = enough / timed.workload().macs

    def part(seconds: float, **config: Any) -> Any:
        of = replace(start, budget=replace(job.config, **config).budget)
        return likely_part(of, timed, 100.0, seconds)

    assert part(1.01 * seconds, latency=None) == {"resolution": 96, "width": 1.0, "depth": 1.0}
    smaller = part(0.9 * seconds, latency=None)
    assert smaller["depth"] == 1.0
    assert smaller != {"resolution": 96, "width": 1.0, "depth": 1.0}
    assert part(1e-3, latency=None) == {"resolution": 64, "width": 0.5, "depth": 1.0}
    assert part(1.01 * seconds, latency=None, flash="1MB") == {"resolution": 96, "width": 0.5, "depth": 1.0}
    assert part(1.01 * seconds, latency=None, flash="1kB") is None
