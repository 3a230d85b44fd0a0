"""Pruning is one algorithm: an Arch, the same network as a module and a model of timm lose the same and can the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from compress import Artifact, Context, Prune
from compress.networks.network_source import GivenModule, OnnxFile, Timm
from compress.networks.slice_channels import cut_module
from compress.pruning.channel_groups import kept_channels
from compress.pruning.module_groups import find_groups
from compress.pruning.module_widths import ModuleWidths
from compress.pruning.prunable_network import prunable_network, removable_blocks, without
from hw_profiles import profile
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.torch_io.trace import trace
from search_spaces import preset
from tests.goldens.networks import Dense, Gated, of_arch, of_module, of_timm
from tests.goldens.results import context as golden_context
from tests.parameters import slow


@pytest.fixture(scope="module")
def context() -> Context:
    made = golden_context()
    return replace(made, device=replace(made.device, channel_multiple=4))


def as_module(artifact: Artifact) -> Artifact:
    return replace(of_module(artifact.model()), preprocessing=artifact.preprocessing)


def shares_of(artifact: Artifact, context: Context, shares: Mapping[str, float]) -> dict[str, Any]:
    before = profile(artifact.source, context.device)
    return {name: share * getattr(before, name) for name, share in shares.items()}


SETTINGS = {
    "an amount": ({}, {"amount": 0.3, "criterion": "l2"}),
    "by the loss": ({}, {"amount": 0.3, "criterion": "taylor"}),
    "one limit": ({"latency_ms": 0.85}, {"criterion": "l1"}),
    "several limits in steps": ({"macs": 0.6, "latency_ms": 0.9}, {"criterion": "fpgm", "steps": 2}),
}


@pytest.mark.parametrize("name", ["resnet8", slow("mobilenetv3_small_050"), slow("mnasnet_050")])
@pytest.mark.parametrize("settings", SETTINGS)
def test_an_arch_and_its_module_end_with_the_same_channels(name: str, settings: str, context: Context) -> None:
    artifact = of_arch(name)
    shares, others = SETTINGS[settings]
    limits = shares_of(artifact, context, shares)
    stage = Prune(recipe=None, **limits, **others)
    of_its_arch, of_its_module = stage(artifact, context), stage(as_module(artifact), context)
    assert sum(map(torch.numel, of_its_arch.weights.values())) < sum(map(torch.numel, artifact.weights.values()))
    assert of_its_arch.weights.keys() == of_its_module.weights.keys()
    for key, value in of_its_arch.weights.items():
        assert torch.equal(value, of_its_module.weights[key]), key
    after = profile(of_its_module.source, context.device)
    assert all(getattr(after, limited) <= limit for limited, limit in limits.items())


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv3_small_050"])
def test_an_arch_says_the_groups_that_are_found_in_its_module(name: str) -> None:
    artifact = of_arch(name)
    assert dict(prunable_network(artifact).groups) == find_groups(artifact.model(), (3, 32, 32)).groups


@pytest.mark.parametrize("make", [Gated, Dense])
def test_operations_at_other_widths_are_those_of_the_module_that_is_cut(make: type[nn.Module]) -> None:
    model = make().eval()
    groups = find_groups(model, (3, 32, 32)).groups
    assert len(groups) > 1
    chosen = {name: torch.arange(1 + number, group.width) for number, (name, group) in enumerate(groups.items())}
    found = ModuleWidths(model, groups, (3, 32, 32))({name: len(units) for name, units in chosen.items()})
    expected = trace(cut_module(model, kept_channels(groups, model, chosen)), (3, 32, 32))
    assert (found.ops, found.shapes) == (expected.ops, expected.shapes)


def test_an_onnx_file_is_refused_with_the_way_on(context: Context) -> None:
    file = OnnxFile(data=write_onnx(preset("resnet8").workload()))
    artifact = Artifact(source=file, weights={}, preprocessing=context.data.preprocessing)
    with pytest.raises(ValueError, match="give an Arch, a module"):
        Prune()(artifact, context)


def test_blocks_of_a_module_are_those_of_its_arch() -> None:
    artifact = of_arch("mobilenetv2_035")
    module = as_module(artifact)
    assert removable_blocks(module) == removable_blocks(artifact)
    x = torch.randn(2, 3, 32, 32)
    for place in removable_blocks(artifact)[:2]:
        one, other = without(artifact, place), without(module, place)
        with torch.inference_mode():
            torch.testing.assert_close(one.model()(x), other.model()(x), rtol=0, atol=0)


@pytest.mark.slow
def test_blocks_and_then_channels_of_a_model_of_timm_are_removed_and_made_again(context: Context) -> None:
    artifact = of_timm("test_vit")
    places = removable_blocks(artifact)
    assert len(places) > 1
    limits = shares_of(artifact, context, {"macs": 0.6})
    after = Prune(recipe=None, blocks=1, criterion="l2", **limits)(artifact, context)
    assert isinstance(after.source, Timm)
    again = replace(after, source=Timm.from_json(after.source.to_json()))
    assert len(removable_blocks(again)) == len(places) - 1
    assert again.source.workload().macs <= limits["macs"]
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again.model()(x), after.model()(x))


def test_a_block_that_is_called_with_more_than_a_tensor_stays() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: torch.Tensor, scale: float) -> torch.Tensor:
            return x + scale * self.conv(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.blocks = nn.Conv2d(3, 8, 1), nn.ModuleList([Block(), Block()])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            for block in self.blocks:
                x = block(x, 0.5)
            return x.mean((2, 3))

    artifact = of_module(Net())
    assert removable_blocks(artifact) == []
    assert isinstance(artifact.source, GivenModule)
