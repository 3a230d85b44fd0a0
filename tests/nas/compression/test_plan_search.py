"""The search for a plan, on a made-up compression whose best plan is known."""

from __future__ import annotations

from compress import Artifact, Recipe
from compress.networks.as_artifact import as_artifact
from compress.networks.network_source import OnnxFile
from compress.networks.onnx_export import onnx_bytes
from nas.compression.plan_search import Scored, searched_strengths
from nas.compression.strengths import STRENGTHS, Strength, Trainings, plan_of
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
    assert plan.names == ("sparsify", "int8", "cluster", "encode")
    assert all(getattr(stage, "recipe", None) is None for stage in plan.stages)
    trained = plan_of(STRENGTHS[-1], network, trainings, teacher=True)
    assert trained.names == ("distill", "prune", "sparsify", "int8", "cluster", "encode")
    recipe = trained.stages[1].recipe  # type: ignore[attr-defined]
    assert recipe == Recipe(epochs=2.0, learning_rate=0.03, seconds=5.0)
