"""Pruning of any module: what is left computes what the whole did without those channels, and keeps the limit."""

from __future__ import annotations

import copy
import io
import warnings

import onnxruntime
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress import load_data
from compress.networks.slice_channels import INPUTS, cut_module
from compress.pruning.importance import CRITERIA
from compress.pruning.module_groups import find_groups
from compress.pruning.prunable_network import PrunableNetwork
from hw_profiles import Device, load_device, profile
from tests.contracts import with_random_statistics
from tests.parameters import quick, slow
from tests.prunings import prune_module

SHAPE = (3, 64, 64)
NAMES = ("resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224", "regnetx_002", "convnext_atto")


@pytest.fixture(scope="module")
def device() -> Device:
    return load_device("host")


def timm_model(name: str) -> nn.Module:
    torch.manual_seed(0)
    sized = {"img_size": 64, "depth": 4} if name.startswith("vit") else {}
    model = with_random_statistics(timm.create_model(name, num_classes=10, **sized))
    for key, value in model.named_parameters():
        if key.endswith("gamma"):  # of ConvNeXt's branches, which begin at a millionth
            nn.init.ones_(value)
    return model


class Twice(nn.Module):
    """One convolution that is used twice, channels side by side, and positions that a linear layer reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2)
        self.shared = nn.Conv2d(32, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.last = nn.Conv2d(64, 48, 3, stride=4)
        self.classifier = nn.Linear(48 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        y = y + torch.relu(self.shared(y))
        z = torch.relu(self.shared(y))
        return self.classifier(torch.relu(self.last(self.norm(torch.cat([y, z], 1)))).flatten(1))


def without_channels(model: nn.Module, kept: dict[str, list[int]]) -> nn.Module:
    """The module with every layer blind to the input channels that are not kept."""
    blind = copy.deepcopy(model)
    for key, numbers in kept.items():
        if key.endswith(INPUTS):
            layer = blind.get_submodule(key.removesuffix(INPUTS))
            leaving = torch.ones(layer.weight.shape[1], dtype=torch.bool).index_fill_(0, torch.tensor(numbers), False)
            with torch.no_grad():
                layer.weight[:, leaving] = 0
    return blind


@pytest.mark.parametrize("name", quick([*NAMES, "twice"], ["resnet18", "vit_tiny_patch16_224", "twice"]))
def test_what_is_left_computes_what_the_whole_did_without_those_channels(name: str, device: Device) -> None:
    model = with_random_statistics(Twice()) if name == "twice" else timm_model(name)
    before = copy.deepcopy(model.state_dict())
    pruned = prune_module(model, SHAPE, device, amount=0.3)
    x = torch.randn(2, *SHAPE)
    with torch.inference_mode():
        got, whole = pruned.model.double()(x.double()), model.double()(x.double())
        expected = without_channels(model, pruned.kept)(x.double())
    torch.testing.assert_close(got, expected, atol=1e-8, rtol=1e-6)
    assert not torch.allclose(got, whole)
    assert sum(p.numel() for p in pruned.model.parameters()) < 0.9 * sum(p.numel() for p in model.parameters())
    assert all(torch.equal(value, model.state_dict()[key].to(value.dtype)) for key, value in before.items())


@pytest.mark.parametrize("name", ["resnet18", slow("mobilenetv3_small_050")])
@pytest.mark.parametrize("quantity", ["latency_ms", "macs"])
def test_the_limit_holds_and_the_file_runs(name: str, quantity: str, device: Device) -> None:
    model = timm_model(name)
    limit = 0.7 * getattr(profile(model, device, input_shape=SHAPE), quantity)
    pruned = prune_module(model, SHAPE, device, **{quantity: limit})
    assert 0.9 * limit < getattr(profile(pruned.model, device, input_shape=SHAPE), quantity) <= limit
    x, buffer = torch.randn(1, *SHAPE), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(pruned.model, (x,), buffer, dynamo=False, opset_version=20)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = pruned.model(x)
    got = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    torch.testing.assert_close(got, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


def test_a_limit_of_ram_takes_channels_where_most_lives(device: Device) -> None:
    torch.manual_seed(0)
    wide = [nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU()]
    narrow = [nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = nn.Sequential(*wide, *narrow, nn.Linear(64, 10))
    whole = profile(net, device, input_shape=SHAPE).peak_ram_bytes
    pruned = prune_module(net, SHAPE, device, peak_ram_bytes=0.55 * whole).model
    assert 0.4 * whole < profile(pruned, device, input_shape=SHAPE).peak_ram_bytes <= 0.55 * whole
    assert pruned[0].out_channels + pruned[2].out_channels < 128
    assert (pruned[4].out_channels, pruned[6].out_channels) == (64, 64)
    with pytest.raises(ValueError, match=r"peak_ram_bytes must be at least .*got 100"):
        prune_module(net, SHAPE, device, peak_ram_bytes=100)


def test_whole_heads_leave_and_the_stream_stays_as_wide(device: Device) -> None:
    model = timm_model("vit_tiny_patch16_224")
    pruned = prune_module(model, SHAPE, device, amount=0.5).model
    heads = [block.attn.num_heads for block in pruned.blocks]
    assert min(heads) < 3
    assert all(block.attn.qkv.out_features == 3 * 64 * block.attn.num_heads for block in pruned.blocks)
    assert all(block.mlp.fc1.out_features % device.channel_multiple == 0 for block in pruned.blocks)
    assert {block.norm1.normalized_shape[0] for block in pruned.blocks} == {192}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_channel_that_does_nothing_leaves_first(criterion: str, device: Device) -> None:
    data = load_data("digits").resized(16, 16)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 8, 3), nn.Flatten(), nn.Linear(8 * 144, 10)
    )
    idle = list(range(3, 64, 4))
    with torch.no_grad():
        for value in (net[0].weight, net[1].weight, net[1].bias):
            value[idle] = 0.0
    pruned = prune_module(net, (1, 16, 16), device, amount=16 / 64, criterion=criterion, data=data)
    assert list(pruned.kept["0"]) == [i for i in range(64) if i not in idle]


def test_channels_leave_where_they_cost_most(device: Device) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, stride=4, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 256, 5),
    )  # fmt: skip
    with torch.no_grad():  # the least channels of the first two matter more than the least of the third, but cost more
        for layer in (net[0], net[2]):
            layer.weight.fill_(1.0).add_(0.01 * torch.rand(64, 1, 1, 1))
    limit = 0.9 * profile(net, device, input_shape=SHAPE).macs
    widths = {}
    for cost_aware in (True, False):
        pruned = prune_module(net, SHAPE, device, macs=limit, cost_aware=cost_aware).model
        widths[cost_aware] = [pruned[i].out_channels for i in (0, 2, 4)]
    assert widths == {True: [64, 48, 64], False: [64, 64, 32]}


def remade(pruned: PrunableNetwork, model: nn.Module) -> nn.Module:
    again = cut_module(copy.deepcopy(model), pruned.kept)
    again.load_state_dict(pruned.model.state_dict())
    return again


@pytest.mark.parametrize("name", [slow("mobilenetv3_small_050"), "vit_tiny_patch16_224"])
def test_what_was_kept_makes_the_same_module_of_a_fresh_one(name: str, device: Device) -> None:
    seen: list[int] = []

    def recover(module: nn.Module) -> None:
        seen.append(sum(p.numel() for p in module.parameters()))
        with torch.no_grad():
            for value in module.parameters():
                value.add_(0.01 * torch.randn_like(value))

    model = timm_model(name)
    pruned = prune_module(model, SHAPE, device, amount=0.4, steps=2, recover=recover)
    assert seen[1] < seen[0] < sum(p.numel() for p in model.parameters())
    x = torch.randn(2, *SHAPE)
    with torch.inference_mode():
        torch.testing.assert_close(remade(pruned, model).eval()(x), pruned.model.eval()(x))


def test_what_cannot_be_cut_is_held_whole(device: Device) -> None:
    class Bound(nn.Module):
        """Channels that a normalization, a fixed view, a bare parameter or the output binds."""

        def __init__(self) -> None:
            super().__init__()
            self.viewed, self.scaled = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 1)
            self.grouped, self.normed = nn.Conv2d(32, 32, 3, padding=1, groups=2), nn.Conv2d(32, 32, 1)
            self.group_norm, self.free, self.last = nn.GroupNorm(4, 32), nn.Conv2d(32, 32, 1), nn.Conv2d(32, 4, 1)
            self.factor = nn.Parameter(torch.ones(1, 32, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = self.viewed(x)
            x = x.view(len(x), 2, 16, *x.shape[2:]).transpose(1, 2).reshape(len(x), 32, *x.shape[2:])
            x = self.grouped(self.scaled(x) * self.factor)
            return F.adaptive_avg_pool2d(self.last(torch.relu(self.free(self.group_norm(self.normed(x))))), 1)

    assert set(find_groups(Bound(), SHAPE).groups) == {"free"}
    pruned = prune_module(Bound(), SHAPE, device, amount=0.5)
    assert pruned.model(torch.zeros(1, *SHAPE)).shape == (1, 4, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["skresnet18", "res2net50_14w_8s"])
def test_networks_of_branches_that_are_weighed_or_chained_are_pruned(name: str, device: Device) -> None:
    network = timm.create_model(name, num_classes=3).eval()
    pruned = prune_module(network, (3, 64, 64), device, amount=0.3, criterion="l2").model
    assert pruned(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    left, before = (sum(p.numel() for p in each.parameters()) for each in (pruned, network))
    assert left < 0.9 * before


@pytest.mark.slow
def test_views_that_cannot_be_followed_are_refused_with_what_to_do() -> None:
    network = timm.create_model("shvit_s1", num_classes=3).eval()
    with pytest.raises(
        ValueError, match=r"SHViT: cannot be followed .*one of its views.*sparsify or quantize it instead"
    ):
        find_groups(network, (3, 64, 64))


def test_impossible_requests_are_refused(device: Device) -> None:
    model = timm_model("mobilenetv3_small_050")
    whole = profile(model, device, input_shape=SHAPE).latency_ms
    with pytest.raises(ValueError, match=r"latency_ms must be at least .*, got ") as refusal:
        prune_module(model, SHAPE, device, latency_ms=whole / 1000)
    assert whole / 1000 < float(str(refusal.value).split("at least ")[1].split(",")[0]) < whole
    with pytest.raises(ValueError, match="criterion must be one of l1, l2, bn_scale, taylor, fpgm, got 'l3'"):
        prune_module(model, SHAPE, device, criterion="l3")
    with pytest.raises(ValueError, match="amount must be between 0 and 1, got 1"):
        prune_module(model, SHAPE, device, amount=1)
    with pytest.raises(ValueError, match="Prune takes an amount or limits, got"):
        prune_module(model, SHAPE, device, amount=0.5, macs=1e6)
    with pytest.raises(ValueError, match="Linear: has no prunable channels"):
        prune_module(nn.Linear(4, 2), (3, 4, 4), device)
    with pytest.raises(ValueError, match=r"Conv2d: cannot be followed with an input of \(3, 64, 64\)"):
        prune_module(nn.Conv2d(4, 2, 1), SHAPE, device)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"stem": [0]}, "there is no layer 'stem'"),
        ({"0": [0, 8]}, r"0 must be ascending numbers below 8, at least one, got \[0, 8\]"),
        ({"0": []}, "at least one"),
        ({"0": [3, 2]}, "must be ascending"),
        ({"0": [-1]}, "must be ascending"),
        ({"1:inputs": [0]}, "1 is a batch normalization and has no inputs"),
        ({"2": [0]}, "2 must be a convolution, linear layer, batch normalization or PReLU, got ReLU"),
        ({"2:heads": [0]}, "2 must be an attention module, got ReLU"),
        ({"3": [0]}, "3 is a grouped convolution"),
    ],
)
def test_channels_that_a_module_does_not_have_are_refused(kept: dict[str, list[int]], said: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2))
    with pytest.raises(ValueError, match=said):
        cut_module(net, kept)
