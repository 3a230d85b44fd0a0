"""Which channels count least, by each criterion, and what it means that they have a cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compress import Artifact, Context, Prune
from compress.pruning.arch_widths import prunable_groups
from compress.pruning.importance import channel_scores
from compress.pruning.module_groups import find_groups
from compress.pruning.prunable_network import prunable_network
from tests.compress.model_kinds import BLINK

PLACE = "stages.1.0.conv1"
LEAST = {"l1": 2, "l2": 2, "fpgm": 5}


def filters(shape: torch.Size) -> Tensor:
    """Around a common one; the fifth is that one, which the others can stand in for, the second is the smallest."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(shape[1:], generator=generator)
    made = common + torch.randn(shape, generator=generator)
    made[5] = common
    made[2] = -0.3 * common
    return made


@pytest.mark.parametrize("criterion", LEAST)
def test_a_channel_counts_least_by_what_the_criterion_says(criterion: str, learnt: Artifact) -> None:
    key = f"{PLACE}.conv.weight"
    changed = replace(learnt, weights={**learnt.weights, key: filters(learnt.weights[key].shape)})
    network = prunable_network(changed)
    scores = channel_scores(network.model, network.groups, criterion)
    assert scores[f"{PLACE}.conv"].argmin() == LEAST[criterion]


@pytest.mark.parametrize("criterion", LEAST)
def test_so_it_does_in_any_module(criterion: str) -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1))
    with torch.no_grad():
        module[0].weight.copy_(filters(module[0].weight.shape))
    scores = channel_scores(module, find_groups(module, (3, 8, 8)).groups, criterion)
    assert scores["0"].argmin() == LEAST[criterion]


class Residual(nn.Module):
    """Two convolutions that write the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y + self.second(torch.relu(y))).mean((2, 3))


def test_taylor_adds_up_what_all_writers_of_a_channel_do() -> None:
    """With its sign, as the gradient of one gate on all of them (1906.10771)."""
    torch.manual_seed(0)
    module, x, labels = Residual(), torch.randn(6, 3, 8, 8), torch.arange(6) % 4
    (scores,) = channel_scores(module, find_groups(module, (3, 8, 8)).groups, "taylor", [(x, labels)]).values()
    gate = torch.ones(16, requires_grad=True)
    for writer in (module.first, module.second):
        writer.register_forward_hook(lambda layer, given, made: made * gate.view(1, -1, 1, 1))
    nn.functional.cross_entropy(module(x), labels).backward()
    expected = gate.grad.abs()
    torch.testing.assert_close(scores / scores.mean(), expected / expected.mean(), rtol=1e-3, atol=1e-4)


def test_with_costs_fewer_channels_leave_for_the_same_operations(learnt: Artifact, context: Context) -> None:
    few = replace(context.data, train=context.data.train.some(200, 0))
    fine = replace(context, data=few, device=replace(context.device, channel_multiple=4))
    limit = 0.7 * learnt.arch.workload().macs
    left = {}
    for cost_aware in (True, False):
        after = Prune(macs=limit, cost_aware=cost_aware, recipe=BLINK)(learnt, fine)
        assert after.arch.workload().macs <= limit
        groups = prunable_groups(after.arch)
        left[cost_aware] = sum(groups.width[group] for group in groups.prunable())
    assert left[True] > left[False]
