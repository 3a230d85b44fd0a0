"""The search for a plan, on a made-up compression whose best plan is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compress import Artifact, Context, Prune, Recipe, load_data, run_stages
from compress.data.dataset import Split
from compress.networks.as_artifact import as_artifact
from compress.networks.network_source import OnnxFile
from compress.networks.onnx_export import onnx_bytes
from hw_profiles import load_device
from nas.compression import plan_runs
from nas.compression.judging_images import choosing_and_judging
from nas.compression.plan_search import Scored, searched_strengths
from nas.compression.strengths import PLAIN_INT8, STRENGTHS, Strength, Trainings, plan_of
from search_spaces import preset


def made_up(strength: Strength) -> Scored:
    """Channels cost accuracy, zeros and int8 hardly any."""
    channels, zeros = strength.channels or 0.0, strength.zeros or 0.0
    size = 1e6 * (1 - channels) * (1 - 0.9 * zeros) * (0.25 if strength.int8 else 1) * (0.7 if strength.clusters else 1)
    lost = 10 * channels + (4 * (zeros - 0.8) if zeros > 0.8 else 0) + (0.1 if strength.int8 else 0)
    return Scored(strength=strength, coded_bytes=round(size), points_lost=lost)


def test_the_search_does_better_than_the_ready_plans_within_the_tolerance() -> None:
    ready = [each for each in map(made_up, STRENGTHS) if each.points_lost <= 1.0]
    found = searched_strengths(made_up, allowed=1.0, trials=40, trains=True)
    assert found[0].points_lost <= 1.0
    assert found[0].coded_bytes < 0.6 * min(each.coded_bytes for each in ready)
    lost = [max(0.0, each.points_lost - 1.0) for each in found]
    assert lost == sorted(lost)


def test_proposals_learn_what_costs_too_much_accuracy() -> None:
    runs: list[Scored] = []

    def run(strength: Strength) -> Scored:
        runs.append(made_up(strength))
        return runs[-1]

    searched_strengths(run, allowed=1.0, trials=40, trains=True)
    later = [each.points_lost <= 1.0 for each in runs[12:]]
    assert sum(later) > 0.4 * len(later)  # a sixth where the loss is not told


def test_plans_that_miss_a_limit_come_after_those_that_keep_it() -> None:
    def run(strength: Strength) -> Scored:
        return replace(made_up(strength), excess=0.0 if strength.int8 else 0.5)

    found = searched_strengths(run, allowed=1.0, trials=30, trains=True)
    allowed = [each.excess for each in found if each.points_lost <= 1.0]
    assert allowed == sorted(allowed)
    assert {*allowed} == {0.0, 0.5}


@pytest.mark.parametrize(("images", "divided"), [(6000, True), (200, False)])
def test_the_images_that_choose_a_plan_do_not_judge_it(images: int, divided: bool) -> None:
    labels = np.random.default_rng(1).integers(0, 10, images)
    val = Split(np.arange(images).reshape(-1, 1, 1, 1), labels)
    choosing, judging = choosing_and_judging(val, allowed=1.0, confidence=0.9, seed=3)
    if not divided:
        assert choosing is judging is val
        return
    both = np.concatenate([choosing.images.ravel(), judging.images.ravel()])
    assert sorted(both.tolist()) == list(range(images))
    counts = np.bincount(choosing.labels) - np.bincount(judging.labels)
    assert np.abs(counts).max() <= 1


def test_nothing_is_run_twice_and_the_same_seed_proposes_the_same() -> None:
    runs: list[Strength] = []

    def run(strength: Strength) -> Scored:
        runs.append(strength)
        return made_up(strength)

    first = searched_strengths(run, allowed=1.0, trials=25, trains=True, seed=3)
    assert len(set(runs)) == len(runs)
    assert searched_strengths(made_up, allowed=1.0, trials=25, trains=True, seed=3) == first
    assert searched_strengths(made_up, allowed=1.0, trials=25, trains=True, seed=4) != first


def test_a_search_ends_in_time_and_prunes_no_file() -> None:
    assert len(searched_strengths(made_up, allowed=1.0, trials=25, trains=True, is_over=lambda: True)) == 1
    found = searched_strengths(made_up, allowed=1.0, trials=10, trains=False)
    assert {each.strength.channels for each in found} == {None}


def test_a_file_is_compressed_without_training() -> None:
    network = as_artifact(preset("resnet8"), None)
    file = Artifact(source=OnnxFile(data=onnx_bytes(network)), weights={}, preprocessing=network.preprocessing)
    trainings = Trainings(epochs=2.0, learning_rate=0.1, seconds=5.0)
    plan = plan_of(STRENGTHS[-1], file, trainings)
    assert plan.names == ("sparsify", "int8", "encode")
    assert plan.stages[1] == replace(PLAIN_INT8, least_squares=True, levels=STRENGTHS[-1].clusters)
    assert plan_of(Strength(clusters=16, int8=False), file, trainings).names == ("cluster", "encode")
    assert all(getattr(stage, "recipe", None) is None for stage in plan.stages)
    trained = plan_of(STRENGTHS[-1], network, trainings, teacher=True)
    assert trained.names == ("distill", "prune", "sparsify", "int8", "cluster", "encode")
    recipe = trained.stages[1].recipe  # type: ignore[attr-defined]
    assert recipe == Recipe(epochs=2.0, learning_rate=0.03, seconds=5.0)


def test_the_plan_of_a_file_with_few_levels_runs(tmp_path: Path) -> None:
    data = load_data("digits", size=16)
    network = as_artifact(preset("resnet8", input_shape=(1, 16, 16)), data)
    file = Artifact(source=OnnxFile(data=onnx_bytes(network)), weights={}, preprocessing=network.preprocessing)
    context = Context(data=data, device=load_device("host"), measured=False, max_accuracy_drop=100.0)
    plan = plan_of(Strength(clusters=16), file, Trainings(epochs=1.0, learning_rate=0.1))
    done = run_stages(file, plan.stages, context, tmp_path)
    assert [(record["stage"], record["accepted"]) for record in done.history] == [("int8", True), ("encode", True)]
    assert done.history[0]["config"]["levels"] == 16


def test_pruning_to_limits_is_costed_in_the_precision_that_is_deployed() -> None:
    network, trainings = as_artifact(preset("resnet8"), None), Trainings(epochs=1.0, learning_rate=0.1)
    limits = {"latency_ms": 2.0, "peak_ram_bytes": 50_000.0, "flash_bytes": 10_000.0}
    for int8, precision in ((True, "int8"), (False, "fp32")):
        strength = Strength(zeros=0.5, int8=int8, to_limits=True)
        prune = plan_of(strength, network, trainings, limits=limits).stages[0]
        assert isinstance(prune, Prune)
        assert prune.precision == precision
        assert prune.limits() == {"latency_ms": pytest.approx(1.94), "peak_ram_bytes": pytest.approx(48_500)}
    assert strength.label == "sparsity 0.5, channels pruned to the limits, float32"


def test_plans_that_were_begun_are_gone_on_with_when_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A compression that is called again must not leave out what it found before."""
    ran: list[str] = []

    def run(job: Any, label: str, *_: Any, **settings: Any) -> Any:
        ran.append(label + ", any loss" * bool(settings))
        return SimpleNamespace(excess=lambda job: 1.0, coded_bytes=1)

    monkeypatch.setattr(plan_runs, "_run", run)
    monkeypatch.setattr(plan_runs, "_strengths", lambda *_: ())
    monkeypatch.setattr(plan_runs, "_plans", lambda *_: [(label, None) for label in ("a", "b, c", "d")])
    for folder in ("a", "b_c", "a_any_loss"):
        (tmp_path / "plans" / folder).mkdir(parents=True)
    clock: Any = SimpleNamespace(left=1.0, total=10.0)
    reference: Any = None
    job: Any = SimpleNamespace(is_searched=False)
    plan_runs.run_plans(job, plan_runs.Place(reference=reference, folder=tmp_path, clock=clock))
    assert ran == ["a", "b, c", "a, any loss"]
