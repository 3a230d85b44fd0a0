"""Importance by the loss is looked at again while channels leave."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress import Artifact, Context, Prune, Recipe, load_data
from compress.data.preprocessing import Preprocessing
from compress.pruning.arch_widths import block_groups, prunable_groups, with_widths
from compress.pruning.channel_groups import Groups
from compress.pruning.channel_selection import least_widths
from compress.pruning.importance import Scores
from compress.pruning.prunable_network import prunable_network
from hw_profiles import load_device
from hw_profiles.network.channel_groups import channel_groups
from search_spaces import Arch, build_model, preset

SHORT = Recipe(epochs=0.02)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    arch = preset("resnet8", input_shape=(1, 16, 16))
    groups = channel_groups(arch.workload())
    wide = {group: count if group in groups.fixed else 3 * count for group, count in groups.width.items()}
    arch = with_widths(arch, block_groups(arch, groups), wide)
    names = tuple(map(str, range(10)))
    record = Preprocessing(channels=1, sizes=((16, 16),), mean=(0.5,), std=(0.25,), class_names=names)
    return Artifact(source=arch, weights={}, preprocessing=record).with_model(build_model(arch))


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(data=load_data("digits").resized(16, 16), device=load_device("host"), measured=False)


def widths(arch: Arch) -> dict[str, int]:
    groups = prunable_groups(arch)
    return {group: groups.width[group] for group in groups.prunable()}


@pytest.fixture(autouse=True)
def matters_more_once_narrowed(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """All channels matter alike as long as their whole group is there, and more after."""
    whole = prunable_network(artifact).width

    def scores(model: nn.Module, groups: Groups, *others: object) -> Scores:
        return {g: torch.full((group.width,), 1.0 if group.width == whole[g] else 9.0) for g, group in groups.items()}

    monkeypatch.setattr("compress.pruning.prune.channel_scores", scores)


def narrowed(artifact: Artifact, context: Context, criterion: str) -> set[str]:
    """The groups that lost channels."""
    before, after = (
        widths(each.arch)
        for each in (artifact, Prune(amount=0.4, criterion=criterion, recipe=SHORT)(artifact, context))
    )
    return {group for group in before if after[group] < before[group]}


def test_what_became_more_important_stays(artifact: Artifact, context: Context) -> None:
    assert narrowed(artifact, context, "l2") < narrowed(artifact, context, "taylor")


def test_looking_again_takes_no_more_of_a_group_than_one_step_may(artifact: Artifact, context: Context) -> None:
    after = widths(Prune(amount=0.95, criterion="taylor", recipe=SHORT)(artifact, context).arch)
    assert after == least_widths(widths(artifact.arch), context.device.channel_multiple)
