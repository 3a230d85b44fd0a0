"""Presets: what they are beside timm, and that pruning takes them."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from compress.networks.slice_channels import cut_module
from compress.pruning.arch_widths import arch_groups, pruned_arch
from compress.pruning.channel_groups import kept_channels
from hw_profiles.network.channel_groups import channel_groups
from hw_profiles.network.workload import WEIGHTED
from search_spaces import build_model, list_presets, preset
from search_spaces.families import FAMILIES
from search_spaces.trained_weights.timm_keys import timm_keys
from tests.contracts import check_arch, with_random_statistics
from tests.parameters import quick

OF_TIMM = [name for name in list_presets() if timm.is_model(name)]
NARROWEST = [next(name for name in list_presets() if name.startswith(family)) for family in FAMILIES]


def counted_macs(model: nn.Module, shape: tuple[int, int, int]) -> int:
    counted = FlopCountAnalysis(model.eval(), torch.zeros(1, *shape))
    counted.unsupported_ops_warnings(False)
    counted.uncalled_modules_warnings(False)
    by_operator = counted.by_operator()
    return int(by_operator["conv"] + by_operator["linear"])


def test_every_preset_but_resnet8_is_known_to_timm() -> None:
    assert set(list_presets()) - set(OF_TIMM) == {"resnet8"}


@pytest.mark.parametrize("name", quick(list_presets(), NARROWEST))
def test_presets_are_what_torch_exports(name: str) -> None:
    check_arch(preset(name, input_shape=(3, 64, 64), num_classes=4))


@pytest.mark.parametrize("name", quick(OF_TIMM, NARROWEST))
def test_presets_are_timms(name: str) -> None:
    """Parameters and MACs are equal, and with the same weights the outputs, to 1e-5 of the largest logit."""
    theirs = with_random_statistics(timm.create_model(name))
    arch = preset(name)
    ours = build_model(arch).eval()
    state = theirs.state_dict()
    ours.load_state_dict({place: state[key] for key, (place, _) in timm_keys(arch).items()}, strict=False)

    workload = arch.workload()
    assert arch.input_shape == theirs.pretrained_cfg["input_size"]
    assert workload.params == sum(p.numel() for p in theirs.parameters())
    assert workload.macs == counted_macs(theirs, arch.input_shape)
    x = torch.randn(1, 3, 72, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_resnet8_has_the_published_size() -> None:
    """2106.07597: 12.5 M MACs; 78,666 values with unfolded batch normalization are 77,706 folded."""
    arch = preset("resnet8")
    assert (arch.workload().macs, arch.workload().weight_count) == (12_501_632, 77_706)
    assert counted_macs(build_model(arch), (3, 32, 32)) == 12_501_632


def test_a_width_that_is_not_listed_lies_between_its_neighbors() -> None:
    narrow, between, wide = (preset(f"mobilenetv2_{p}").workload().params for p in ("050", "060", "075"))
    assert narrow < between < wide


def test_names_that_do_not_exist_get_a_hint() -> None:
    with pytest.raises(ValueError, match="did you mean 'resnet8'"):
        preset("resnet9")
    for name in ("mobilenetv2_000", "mobilenetv2", "resnet8_100", "efficientnet_b0_100", ""):
        with pytest.raises(ValueError, match="unknown preset"):
            preset(name)


@pytest.mark.parametrize("name", NARROWEST)
def test_a_pruned_preset_is_the_preset_with_those_channels_unread(name: str) -> None:
    arch = preset(name, input_shape=(3, 48, 48), num_classes=5)
    workload = arch.workload()
    groups = channel_groups(workload)
    kept = {group: torch.arange(0, groups.width[group], 2) for group in groups.prunable()}
    whole = with_random_statistics(build_model(arch, seed=1))
    smaller = pruned_arch(arch, groups, kept)
    pruned = build_model(smaller).eval()
    layers = arch_groups(arch, whole)
    chosen = {name: kept[group] for group, (name, _) in layers.items()}
    cut = cut_module(copy.deepcopy(whole), kept_channels(dict(layers.values()), whole, chosen))
    pruned.load_state_dict(cut.state_dict())
    assert smaller.workload().macs < 0.6 * workload.macs

    for op in workload.ops:
        if op.kind in WEIGHTED and groups.of[op.inputs[0]] in kept:
            whole.get_submodule(op.name).register_forward_pre_hook(read_even_channels_only)
    x = torch.randn(2, *arch.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = whole(x)
        torch.testing.assert_close(pruned(x), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def read_even_channels_only(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    read = inputs[0].clone()
    read[:, 1::2] = 0
    return read
