"""Channels of tensors that are split, joined and frozen: what leaves together, what stays, and why."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

import compress
from compress.networks.slice_channels import INPUTS
from compress.pruning.importance import CRITERIA
from compress.pruning.module_groups import find_groups
from compress.pruning.prunable_network import PrunableNetwork
from hw_profiles import Device, load_device
from tests.contracts import with_random_statistics
from tests.parameters import slow
from tests.prunings import prune_module

SHAPE = (3, 16, 16)
GENERATOR = np.random.default_rng(0)
DATA = (GENERATOR.integers(0, 255, (24, 16, 16, 3)).astype(np.uint8), np.arange(24) % 3)


@pytest.fixture(scope="module")
def device() -> Device:
    return load_device("host")


class Halves(nn.Module):
    """Two halves of a tensor, each with a convolution of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(width // 2, width // 2, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return torch.cat([torch.relu(self.a(first)), torch.relu(self.b(second))], 1)


class Cascade(nn.Module):
    """Each piece is added to what was made of the one before."""

    def __init__(self, width: int, pieces: int) -> None:
        super().__init__()
        narrow = width // pieces
        self.parts = nn.ModuleList(nn.Conv2d(narrow, narrow, 3, padding=1) for _ in range(pieces))
        self.last = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        done: list[Tensor] = []
        for piece, part in zip(x.chunk(len(self.parts), 1), self.parts, strict=True):
            done.append(torch.relu(part(piece + done[-1] if done else piece)))
        return x + self.last(torch.cat(done, 1))


def net(*middle: nn.Module, width: int = 64) -> nn.Sequential:
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)]
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), *middle, *head).eval()


def blind(model: nn.Module, kept: dict[str, list[int]]) -> nn.Module:
    """The module with every layer blind to the input channels that are not kept."""
    copied = copy.deepcopy(model)
    for key, numbers in kept.items():
        if key.endswith(INPUTS):
            layer = copied.get_submodule(key.removesuffix(INPUTS))
            axis = 0 if isinstance(layer, nn.ConvTranspose2d) else 1
            gone = [i for i in range(layer.weight.shape[axis]) if i not in numbers]
            with torch.no_grad():
                layer.weight.index_fill_(axis, torch.tensor(gone, dtype=torch.int64), 0.0)
    return copied


KINDS = {
    "halves": lambda: net(Halves(64)),
    "cascade of 4": lambda: net(Cascade(64, 4)),
    "cascade of 2 behind another": lambda: net(Cascade(64, 4), Cascade(64, 2)),
    "PReLU": lambda: net(nn.Conv2d(64, 64, 3), nn.PReLU(64), nn.Conv2d(64, 64, 3), nn.PReLU()),
    "transposed convolution": lambda: net(nn.ConvTranspose2d(64, 64, 2, stride=2), nn.BatchNorm2d(64), nn.ReLU()),
    "normalization without scale": lambda: net(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64, affine=False), nn.ReLU()),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("amount", [0.3, 0.6])
def test_what_is_left_computes_what_the_whole_did_without_those_channels(
    kind: str, amount: float, device: Device
) -> None:
    model = KINDS[kind]()
    model = model if kind == "normalization without scale" else with_random_statistics(model)
    pruned = prune_module(model, SHAPE, device, amount=amount)
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    with torch.inference_mode():
        got, expected = pruned.model.double()(x), blind(model.double(), pruned.kept)(x)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-6)
    left = sum(p.numel() for p in pruned.model.parameters())
    assert left < (1 - amount / 2) * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_normalization_without_a_scale_is_ranked_by_the_filters(criterion: str) -> None:
    given = KINDS["normalization without scale"]()
    done = compress.prune(given, DATA, compress.Prune(recipe=None, criterion=criterion), amount=0.4)
    assert sum(p.numel() for p in done.model().parameters()) < 0.7 * sum(p.numel() for p in given.parameters())


class Part(nn.Module):
    """Takes a part of the channels by their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(64, 64, 1), nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        read = self.first(x).relu()
        half = read.shape[1] // 2
        return torch.cat([self.second(read[:, :half]), self.third(read[:, half:])], 1)


def test_channels_that_a_slice_counts_from_the_middle_stay(device: Device) -> None:
    model = with_random_statistics(net(Part()))
    pruned = prune_module(model, SHAPE, device, amount=0.3)
    assert pruned.held["2.first"].startswith("the module itself counts on")
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    with torch.inference_mode():
        got, expected = pruned.model.double()(x), blind(model.double(), pruned.kept)(x)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-6)


class Mixed(nn.Module):
    """Reads channels in another order than that in which they were written."""

    def __init__(self, mix: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.first, self.mix, self.last = nn.Conv2d(64, 32, 1), mix, nn.Linear(width, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.mix(self.first(x).relu()).flatten(1))[:, :, None, None]


def pruned_alike(model: nn.Module, device: Device) -> PrunableNetwork:
    """Pruned, as accurate as the model with the same channels put to zero."""
    pruned = prune_module(model, SHAPE, device, amount=0.3)
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    with torch.inference_mode():
        got, expected = pruned.model.double()(x), blind(model.double(), pruned.kept)(x)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-6)
    return pruned


def test_channels_that_are_told_apart_by_their_order_stay(device: Device) -> None:
    """The places at which they are read again are not those that the graph says."""
    model = with_random_statistics(net(Mixed(lambda x: x.flip(1).mean((2, 3)), 32)))
    assert "tells them apart by their order" in pruned_alike(model, device).held["2.first"]


def test_channels_that_a_view_has_one_after_the_other_again_and_again_leave(device: Device) -> None:
    """The graph takes them for several of each channel in a row."""
    model = with_random_statistics(net(Mixed(lambda x: functional.adaptive_avg_pool2d(x, 2).permute(0, 2, 3, 1), 128)))
    pruned = pruned_alike(model, device)
    assert "2.first" not in pruned.held
    assert {"2.first", "2.last:inputs"} <= pruned.kept.keys()


def frozen(model: nn.Module, *names: str) -> nn.Module:
    for name in names:
        model.get_submodule(name).requires_grad_(False)
    return model


def test_frozen_layers_stay_whole_and_frozen_and_are_named(device: Device) -> None:
    model = frozen(net(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()), "0")
    done = compress.prune(model, DATA, compress.Prune(recipe=compress.Recipe(epochs=0.5)), amount=0.4)
    after = done.model()
    assert torch.equal(after[0].weight, model[0].weight)
    assert not after[0].weight.requires_grad
    assert after[2].out_channels < 64
    assert not torch.equal(after[4].bias, model[4].bias[: len(after[4].bias)])
    assert done.metrics["held"]["0"] == "'0' is frozen (requires_grad is False)"


def test_what_is_frozen_keeps_from_being_pruned_is_said(device: Device) -> None:
    model = frozen(net(nn.Conv2d(64, 64, 3), nn.ReLU()), "0", "2", "6")
    with pytest.raises(ValueError, match=r"no prunable channels; 0: '0' is frozen \(requires_grad is False\); 2: '2'"):
        compress.prune(model, DATA, compress.Prune(recipe=None), amount=0.4)


@pytest.mark.parametrize("stage", ["prune", "sparsify", "cluster", "distill"])
def test_nothing_trains_where_all_is_frozen(stage: str) -> None:
    model, short = net().requires_grad_(False), compress.Recipe(epochs=0.2)
    calls = {
        "prune": lambda: compress.prune(model, DATA, amount=0.4),
        "sparsify": lambda: compress.sparsify(model, DATA, compress.Sparsify(recipe=short), amount=0.5),
        "cluster": lambda: compress.cluster(model, DATA, compress.Cluster(recipe=short), clusters=8),
        "distill": lambda: compress.distill(model, DATA, compress.Distill(recipe=short), teacher=net()),
    }
    with pytest.raises(ValueError, match=r"frozen \(requires_grad is False\)"):
        calls[stage]()


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.gamma = nn.Conv2d(3, 32, 3), nn.Parameter(torch.ones(32, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) * self.gamma


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (net(nn.Conv2d(64, 64, 3, groups=4)), r"0: '2' is a grouped convolution, whose channels cannot be removed"),
        (net(nn.GroupNorm(8, 64)), r"0: its channels go through '2' \(GroupNorm\), which cannot be cut"),
        (nn.Sequential(Scaled(), nn.Conv2d(32, 3, 3)), r"0\.first: its channels meet the parameter '0\.gamma'"),
        (nn.Sequential(nn.Conv2d(3, 8, 3)), r"0: no layer after it reads its channels: they are the output"),
        (
            nn.Sequential(nn.Conv2d(3, 32, 3), nn.Unflatten(1, (4, 8)), nn.Flatten(1, 2), nn.Conv2d(32, 3, 1)),
            "0: the module itself counts on the number of its channels",
        ),
    ],
)
def test_a_refusal_names_the_layer_and_the_reason(model: nn.Module, said: str, device: Device) -> None:
    with pytest.raises(ValueError, match=rf"has no prunable channels; .*{said}"):
        prune_module(model.eval(), SHAPE, device, amount=0.4)


@pytest.mark.parametrize("name", [slow("efficientvit_m0"), "botnet26t_256"])
def test_networks_that_split_and_join_often_are_followed_in_bounded_time(name: str) -> None:
    model = timm.create_model(name, num_classes=3, img_size=64).eval()
    start = time.perf_counter()
    found = find_groups(model, (3, 64, 64))
    assert time.perf_counter() - start < 60
    assert sum(group.width for group in found.groups.values()) > 500
