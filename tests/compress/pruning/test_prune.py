"""Cost-aware pruning: what leaves, in which order, until when, and what the rest computes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blocks.conv import ConvNormAct
from compress import Artifact, Context, Preprocessing, Prune, Recipe, load_data
from compress.data.dataset import Split
from compress.pruning.arch_widths import arch_groups, block_groups, with_widths
from compress.pruning.block_removal import without_weakest_block
from compress.pruning.channel_selection import channels_saved, choose_channels
from compress.pruning.importance import channel_scores, distances_from_all
from compress.pruning.prunable_network import prunable_network, removable_blocks, without
from compress.pruning.width_costs import CostModel
from compress.training.evaluation import predict
from hw_profiles import Device, load_device, profile
from hw_profiles.network.channel_groups import channel_groups
from hw_profiles.network.quantization import Quantization
from search_spaces import Arch, build_model, list_spaces, preset, sample
from tests.contracts import with_random_statistics
from tests.parameters import quick
from tests.prunings import remove_channels, select_channels

SHORT = Recipe(epochs=0.1)
MANY = [
    *(sample(space, seed=seed, input_shape=(3, 64, 64), num_classes=5) for space in list_spaces() for seed in (1, 2)),
    *(preset(name, input_shape=(3, 64, 64), num_classes=5) for name in ("mobilenetv3_small_050", "efficientnet_b0")),
]


def artifact_of(arch: Arch, seed: int = 0) -> Artifact:
    c, h, w = arch.input_shape
    names = tuple(str(i) for i in range(arch.num_classes))
    record = Preprocessing(channels=c, sizes=((h, w),), mean=(0.5,) * c, std=(0.25,) * c, class_names=names)
    empty = Artifact(source=arch, weights={}, preprocessing=record)
    return empty.with_model(with_random_statistics(build_model(arch, seed=seed), seed))


@pytest.fixture(scope="module")
def device() -> Device:
    return load_device("host")


@pytest.fixture(scope="module")
def context(device: Device) -> Context:
    data = load_data("digits").resized(16, 16)
    return Context(data=replace(data, train=data.train.some(200, 0)), device=device, measured=False)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    arch = preset("resnet8", input_shape=(1, 16, 16))  # twice as wide, so that there are multiples of 16 that can leave
    groups = channel_groups(arch.workload())
    wide = {group: count if group in groups.fixed else 2 * count for group, count in groups.width.items()}
    return artifact_of(with_widths(arch, block_groups(arch, groups), wide))


def without_channels(model: nn.Module, arch: Arch, kept: dict[str, Tensor]) -> nn.Module:
    """The module with the activations of the channels that leave at zero."""
    groups, names = channel_groups(arch.workload()), arch_groups(arch, model)
    for name, module in model.named_modules():
        group = groups.of.get(name if name in groups.of else f"{name}.conv", "")
        if group in names and isinstance(module, ConvNormAct | nn.Conv2d):
            mask = torch.zeros(groups.width[group]).index_fill_(0, kept[names[group][0]], 1.0).view(1, -1, 1, 1)
            module.register_forward_hook(lambda m, i, o, mask=mask: o * mask)
    return model


@pytest.mark.parametrize("arch", quick(MANY, MANY[:1] + MANY[-4:-1]), ids=lambda arch: arch.id)
def test_networks_of_every_space_compute_what_they_did_with_those_channels_at_zero(arch: Arch) -> None:
    artifact = artifact_of(arch)
    network = prunable_network(artifact)
    scores = channel_scores(network.model, network.groups, "fpgm")
    kept = select_channels(scores, 0.4 * sum(map(len, scores.values())), 4)
    assert {group for group in kept if len(kept[group]) < network.width[group]}
    x = torch.randn(2, *arch.input_shape, generator=torch.Generator().manual_seed(0)).double()
    with torch.inference_mode():
        got = remove_channels(artifact, kept).model().double()(x)
        expected = without_channels(artifact.model().double(), arch, kept)(x)
        assert not torch.allclose(artifact.model().double()(x), expected)
    torch.testing.assert_close(got, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=1e-5)


def test_the_geometric_median_is_what_the_others_can_stand_in_for() -> None:
    filters = np.random.default_rng(0).standard_normal((6, 3, 3, 3)) + 5
    expected = [sum(np.sqrt(((a - b) ** 2).sum()) for b in filters) for a in filters]
    np.testing.assert_allclose(distances_from_all(torch.from_numpy(filters)).numpy(), expected, rtol=1e-6)
    filters[2] = filters[[0, 1, 3, 4, 5]].mean(0) * 1.01  # long, and in the middle of all
    scores = distances_from_all(torch.from_numpy(filters))
    assert scores.argmin() == 2
    assert np.linalg.norm(filters.reshape(6, -1), axis=1).argmin() != 2


LIMITS = {"latency_ms": 0.7, "peak_ram_bytes": 0.7, "macs": 0.5}


@pytest.mark.parametrize(
    ("name", "precision"),
    quick(
        [(name, form) for name in LIMITS for form in ("fp32", "int8")],
        [("latency_ms", "fp32"), ("peak_ram_bytes", "int8")],
    ),
)
def test_a_limit_holds_and_is_not_undercut_by_much(
    name: str, precision: str, artifact: Artifact, context: Context
) -> None:
    limit = LIMITS[name] * getattr(profile(artifact.arch, context.device, precision), name)
    after = Prune(recipe=SHORT, precision=precision, **{name: limit})(artifact, context)
    value = getattr(profile(after.arch, context.device, precision), name)
    assert 0.85 * limit < value <= limit
    assert after.model()(torch.zeros(1, 1, 16, 16)).shape == (1, 10)


@pytest.mark.slow
def test_several_limits_hold_together_after_several_steps(artifact: Artifact, context: Context) -> None:
    before = profile(artifact.arch, context.device)
    limits = {"latency_ms": 0.75 * before.latency_ms, "peak_ram_bytes": 0.6 * before.peak_ram_bytes}
    after = profile(Prune(steps=2, recipe=SHORT, **limits)(artifact, context).arch, context.device)
    assert after.latency_ms <= limits["latency_ms"]
    assert after.peak_ram_bytes <= limits["peak_ram_bytes"]


def test_a_limit_that_holds_already_changes_nothing(artifact: Artifact, context: Context) -> None:
    after = Prune(macs=1e9, recipe=SHORT)(artifact, context)
    assert after.source == artifact.source
    assert all(torch.equal(after.weights[key], value) for key, value in artifact.weights.items())


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_out_of_reach_names_the_least_that_can_be_reached(
    name: str, artifact: Artifact, context: Context
) -> None:
    value = getattr(profile(artifact.arch, context.device), name)
    with pytest.raises(ValueError, match=f"Prune.{name} must be at least .* on .* in fp32, got ") as refusal:
        Prune(criterion="l2", recipe=SHORT, **{name: value / 1000})(artifact, context)
    least = float(str(refusal.value).split("at least ")[1].split(",")[0])
    assert value / 1000 < least < value
    reached = Prune(criterion="l2", recipe=SHORT, **{name: 1.001 * least})(artifact, context)
    assert getattr(profile(reached.arch, context.device), name) <= 1.001 * least
    with pytest.raises(ValueError, match="must be at least"):
        Prune(criterion="l2", recipe=SHORT, **{name: 0.998 * least})(artifact, context)


def test_channels_leave_by_what_their_leaving_saves() -> None:
    scores = {"cheap": torch.tensor([1.0, 1.0, 1.0]), "dear": torch.tensor([1.5, 1.5, 1.5])}
    microseconds = {"cheap": 1.0, "dear": 2.0}

    def saved(width: dict[str, int], group: str, narrower: int) -> float:
        return microseconds[group] * (width[group] - narrower)

    def enough(width: dict[str, int], group: str, narrower: int) -> bool:
        return sum(width.values()) <= 5

    cost_aware, plain = (choose_channels(scores, 1, order, enough) for order in (saved, channels_saved))
    assert [len(cost_aware[group]) for group in scores] == [3, 2]
    assert [len(plain[group]) for group in scores] == [2, 3]


def test_a_multiple_that_saves_nothing_alone_leaves_with_the_next() -> None:
    scores = {"a": torch.full((8,), 1.0), "b": torch.full((8,), 5.0)}

    def saved(width: dict[str, int], group: str, narrower: int) -> float:
        return float(width["a"] - narrower >= 4) if group == "a" else 0.1 * (width["b"] - narrower)

    kept = choose_channels(scores, 2, saved, lambda width, group, narrower: sum(width.values()) < 16)
    assert {group: len(indices) for group, indices in kept.items()} == {"a": 4, "b": 8}


@pytest.mark.parametrize(
    "arch", [preset(name, input_shape=(3, 64, 64)) for name in ("mobilenetv2_050", "efficientnet_b0")], ids=["m", "e"]
)
def test_the_same_latency_costs_less_importance_than_in_the_order_of_importance(arch: Arch, device: Device) -> None:
    artifact = artifact_of(arch)
    network = prunable_network(artifact)
    scores = channel_scores(network.model, network.groups, "l2")
    limit = 0.7 * profile(arch, device).latency_ms
    lost, widths = {}, {}
    for cost_aware in (True, False):
        cost_model = CostModel(network, device, "fp32", {"latency_ms": limit})
        order = cost_model.saved_of_limits if cost_aware else channels_saved
        kept = choose_channels(scores, 16, order, lambda width, group, narrower, p=cost_model: not p.broken(width))
        assert profile(remove_channels(artifact, kept).arch, device).latency_ms <= limit
        lost[cost_aware] = sum(float(score.sum() - score[kept[group]].sum()) for group, score in scores.items())
        widths[cost_aware] = {group: len(indices) for group, indices in kept.items()}
    assert widths[True] != widths[False]
    assert lost[True] < 0.9 * lost[False]


def test_what_is_saved_is_the_difference_of_two_profiles(artifact: Artifact, device: Device) -> None:
    """A cost that is remembered is that of the network as it is, however it came to be."""
    cost_model = CostModel(prunable_network(artifact), device, "fp32", {})
    width = dict(cost_model.width)
    generator = np.random.default_rng(0)
    for _ in range(30):
        group = str(generator.choice(list(width)))
        narrower = max(16, width[group] - 16)
        before, after = (cost_model.value("latency_ms", w) for w in (width, {**width, group: narrower}))
        assert cost_model.saved("latency_ms", width, group, narrower) == pytest.approx(before - after, abs=1e-9)
        width[group] = narrower


def test_a_block_that_leaves_is_one_whose_branch_is_zero() -> None:
    arch = preset("mobilenetv2_050", input_shape=(3, 64, 64), num_classes=7)
    artifact = artifact_of(arch)
    x = torch.randn(2, 3, 64, 64)
    assert len(removable_blocks(artifact)) == 10
    for place in removable_blocks(artifact):
        silent = artifact.model()
        norm = silent.get_submodule(f"{place}.project.norm")
        nn.init.zeros_(norm.weight), nn.init.zeros_(norm.bias)
        shallower = without(artifact, place)
        with torch.inference_mode():
            torch.testing.assert_close(shallower.model()(x), silent(x))
        assert shallower.arch.workload().macs < arch.workload().macs
    assert "stages.1.0" not in removable_blocks(artifact)  # it changes the number of channels


def test_the_block_that_does_nothing_leaves_first(context: Context) -> None:
    arch = preset("mobilenetv2_050", input_shape=(1, 16, 16), num_classes=10)
    model = artifact_of(arch).model()
    idle = model.get_submodule("stages.4.1.project.norm")
    nn.init.constant_(idle.weight, 1e-6), nn.init.zeros_(idle.bias)
    classifier = model.get_submodule("classifier")
    x = torch.from_numpy(context.data.preprocessing.tensor(context.data.val.images))
    with torch.no_grad():  # sure of what it says, and not always the same
        classifier.bias -= model(x).mean(0)
        classifier.weight *= 1000
        classifier.bias *= 1000
    artifact = artifact_of(arch).with_model(model)
    images, labels = context.data.val.images, predict(model, context.data.val, context.data.preprocessing)
    assert len(np.unique(labels)) > 1
    artifact = replace(artifact, preprocessing=context.data.preprocessing)
    shallower = without_weakest_block(artifact, Split(images, labels), context.device, "fp32")
    assert shallower is not None
    depths = [len(stage) - (i == 4) for i, stage in enumerate(arch.stages)]
    assert [len(stage) for stage in shallower.arch.stages] == depths
    moved = shallower.weights["stages.4.1.project.norm.weight"]
    assert torch.equal(moved, artifact.weights["stages.4.2.project.norm.weight"])


def test_blocks_leave_before_channels_and_only_while_the_limit_is_broken(context: Context) -> None:
    arch = preset("mobilenetv2_050", input_shape=(1, 16, 16), num_classes=10)
    artifact = artifact_of(arch)
    latency_ms = profile(arch, context.device).latency_ms
    depth = sum(map(len, arch.stages))
    held = Prune(latency_ms=0.97 * latency_ms, blocks=9, criterion="l2", recipe=SHORT)(artifact, context)
    assert depth - 2 <= sum(map(len, held.arch.stages)) < depth
    assert profile(held.arch, context.device).latency_ms <= 0.97 * latency_ms
    both = Prune(latency_ms=0.6 * latency_ms, blocks=2, criterion="l2", recipe=SHORT)(artifact, context)
    assert sum(map(len, both.arch.stages)) == depth - 2
    assert profile(both.arch, context.device).latency_ms <= 0.6 * latency_ms


def test_a_quantized_artifact_is_not_pruned(artifact: Artifact, context: Context) -> None:
    with pytest.raises(ValueError, match="Prune must come before the stages that change how weights are stored"):
        Prune()(replace(artifact, quantization=Quantization(activations={})), context)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"latency_ms": 0.0}, "Prune.latency_ms must be a number above 0, got 0.0"),
        ({"macs": math.nan}, "Prune.macs must be a number above 0, got nan"),
        ({"amount": 0.2, "macs": 1e6}, "takes an amount or limits"),
        ({"blocks": -1}, "blocks at least 0, got 1 and -1"),
        ({"precision": "int4"}, "precision must be one of fp32, int8, got 'int4'"),
    ],
)
def test_impossible_prunings_are_refused(fields: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Prune(**fields)
