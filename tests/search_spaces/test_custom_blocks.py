"""A block of the user's own, in a space of the user's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compress
from blocks import BlockSpec, build_block
from blocks.conv import ConvNormAct
from blocks.custom import CUSTOM_BLOCKS
from compress.networks.slice_channels import cut_module
from compress.pruning.arch_widths import arch_groups, prunable_groups, pruned_arch
from compress.pruning.channel_groups import kept_channels
from hw_profiles.network.channel_groups import channel_groups
from hw_profiles.network.workload import WorkloadBuilder
from search_spaces import Arch, Space, build_model, load_space, register_block
from search_spaces.lowering import LOWERINGS, Lowering, conv_norm_act
from tests.contracts import check_arch, check_block, check_space


class Bottleneck(nn.Module):
    """1×1 to the inner channels, k×k, 1×1 back, and the shortcut."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        mid = spec.mid_channels
        self.reduce = ConvNormAct(spec.in_channels, mid, kernel_size=1)
        self.conv = ConvNormAct(mid, mid, kernel_size=spec.kernel_size, stride=spec.stride)
        self.widen = ConvNormAct(mid, spec.out_channels, kernel_size=1, activation="none")
        self.identity = spec.shortcut == "identity"

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.widen(self.conv(self.reduce(x)))
        return x + y if self.identity else y


def lower_bottleneck(builder: WorkloadBuilder, name: str, x: str, spec: BlockSpec) -> str:
    y = conv_norm_act(builder, f"{name}.reduce", x, spec.mid_channels, spec, activation="relu")
    y = conv_norm_act(
        builder, f"{name}.conv", y, spec.mid_channels, spec, kernel_size=spec.kernel_size, stride=spec.stride,
        activation="relu",
    )  # fmt: skip
    y = conv_norm_act(builder, f"{name}.widen", y, spec.out_channels, spec)
    return builder.binary(f"{name}.add", "add", x, y) if spec.shortcut == "identity" else y


def my_space(input_shape: tuple[int, int, int], num_classes: int) -> Space:
    def build(params: dict[str, int]) -> Arch:
        stem = BlockSpec(kind="conv", in_channels=input_shape[0], out_channels=params["width"])
        block = BlockSpec(
            kind="bottleneck", in_channels=params["width"], out_channels=params["width"], mid_channels=params["inner"],
            kernel_size=params["kernel"], shortcut="identity",
        )  # fmt: skip
        stages = ((block,) * params["depth"],)
        return Arch(input_shape=input_shape, stem=stem, stages=stages, head=None, num_classes=num_classes)

    choices = {"width": (8, 16, 24), "inner": (4, 8), "kernel": (3, 5), "depth": (1, 2, 3)}
    return Space(name="mine", choices=choices, build=build)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    register_block("bottleneck", Bottleneck, lower_bottleneck)
    yield
    del LOWERINGS["bottleneck"], CUSTOM_BLOCKS["bottleneck"]


@pytest.mark.parametrize(("out", "stride", "shortcut"), [(8, 1, "identity"), (12, 2, "none")])
def test_a_block_of_ones_own_keeps_the_contract(out: int, stride: int, shortcut: str) -> None:
    spec = BlockSpec(
        kind="bottleneck", in_channels=8, out_channels=out, mid_channels=4, stride=stride, shortcut=shortcut
    )
    check_block(spec)
    assert isinstance(build_block(spec), Bottleneck)


def test_a_space_of_ones_own_blocks_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "my_module", sys.modules[__name__])
    space = load_space("my_module:my_space", input_shape=(3, 16, 16), num_classes=4)
    check_space(space, 4)
    check_arch(space.sample(0))


def test_a_block_of_ones_own_is_pruned() -> None:
    arch = my_space((3, 16, 16), 4).sample(0)
    groups = channel_groups(arch.workload())
    smaller = pruned_arch(arch, groups, {group: range(3) for group in groups.prunable()})
    assert {(s.in_channels, s.mid_channels, s.out_channels) for s in smaller.stages[0]} == {(3, 3, 3)}


def hourglass(groups: int) -> type[nn.Module]:
    """1×1 to the inner channels, a grouped 3×3 to twice as many, 1×1 back."""

    class Hourglass(nn.Module):
        def __init__(self, spec: BlockSpec) -> None:
            super().__init__()
            mid = spec.mid_channels
            self.reduce = ConvNormAct(spec.in_channels, mid, kernel_size=1)
            self.conv = ConvNormAct(mid, 2 * mid, kernel_size=3, groups=groups)
            self.widen = ConvNormAct(2 * mid, spec.out_channels, kernel_size=1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.widen(self.conv(self.reduce(x)))
            return y

    return Hourglass


def lower_hourglass(groups: int) -> Lowering:
    def lower(builder: WorkloadBuilder, name: str, x: str, spec: BlockSpec) -> str:
        y = conv_norm_act(builder, f"{name}.reduce", x, spec.mid_channels, spec, activation="relu")
        y = conv_norm_act(
            builder, f"{name}.conv", y, 2 * spec.mid_channels, spec, kernel_size=3, groups=groups, activation="relu"
        )
        return conv_norm_act(builder, f"{name}.widen", y, spec.out_channels, spec, activation="relu")

    return lower


@pytest.mark.parametrize(("groups", "shrink"), [(1, [32]), (2, [16, 16, 32])])
def test_channels_that_a_spec_cannot_say_or_a_group_binds_stay(groups: int, shrink: list[int]) -> None:
    register_block("hourglass", hourglass(groups), lower_hourglass(groups))
    try:
        stem = BlockSpec(kind="conv", in_channels=3, out_channels=16)
        own = BlockSpec(kind="hourglass", in_channels=16, out_channels=16, mid_channels=16)
        last = BlockSpec(kind="conv", in_channels=16, out_channels=32)
        arch = Arch(input_shape=(3, 16, 16), stem=stem, stages=((own,), (last,)), head=None, num_classes=4)
        check_arch(arch)
        found = prunable_groups(arch)
        assert [found.width[group] for group in found.prunable()] == shrink
        model = build_model(arch)
        smaller = build_model(pruned_arch(arch, found, {group: torch.arange(8) for group in found.prunable()}))
        layers = dict(arch_groups(arch, model).values())
        kept = kept_channels(layers, model, {name: torch.arange(8) for name in layers})
        smaller.load_state_dict(cut_module(model, kept).state_dict())
    finally:
        del LOWERINGS["hourglass"], CUSTOM_BLOCKS["hourglass"]


def test_where_no_channel_can_leave_the_network_stays() -> None:
    register_block("hourglass", hourglass(1), lower_hourglass(1))
    try:
        stem = BlockSpec(kind="conv", in_channels=3, out_channels=16)
        own = BlockSpec(kind="hourglass", in_channels=16, out_channels=16, mid_channels=16)
        arch = Arch(input_shape=(3, 16, 16), stem=stem, stages=((own,),), head=None, num_classes=4)
        images = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3)).astype(np.uint8)
        pruned = compress.prune(arch, (images, np.arange(24) % 4), compress.Prune(recipe=None), amount=0.3)
        assert pruned.arch == arch
    finally:
        del LOWERINGS["hourglass"], CUSTOM_BLOCKS["hourglass"]


def test_the_bottleneck_may_shrink() -> None:
    arch = my_space((3, 16, 16), 4).sample(0)
    assert prunable_groups(arch).prunable() == channel_groups(arch.workload()).prunable()


def test_a_kind_is_registered_once_and_has_a_name() -> None:
    for kind in ("bottleneck", "conv"):
        with pytest.raises(ValueError, match=f"kind '{kind}' is already registered"):
            register_block(kind, Bottleneck, lower_bottleneck)
    for kind in ("", "two words", 3):
        with pytest.raises(ValueError, match="kind must be a name"):
            register_block(kind, Bottleneck, lower_bottleneck)


def test_a_kind_that_was_not_registered_says_how() -> None:
    spec = BlockSpec(kind="absent", in_channels=3, out_channels=3)
    with pytest.raises(ValueError, match=r"one of conv, .*bottleneck, or registered by search_spaces.register_block"):
        build_block(spec)
    with pytest.raises(ValueError, match=r"registered by search_spaces\.register_block"):
        Arch(input_shape=(3, 8, 8), stem=spec, stages=((spec,),), head=None, num_classes=2).workload()


def test_counting_a_block_of_ones_own_loads_no_torch() -> None:
    code = """
import sys
from blocks import BlockSpec
from search_spaces import Arch, register_block
from search_spaces.lowering import conv_norm_act

def build(spec):
    from blocks.conv import Conv
    return Conv(spec)

register_block("mine", build, lambda b, name, x, spec: conv_norm_act(b, name, x, spec.out_channels, spec))
spec = BlockSpec(kind="mine", in_channels=3, out_channels=3)
assert Arch(input_shape=(3, 8, 8), stem=spec, stages=((spec,),), head=None, num_classes=2).workload().macs > 0
sys.exit("torch was loaded" if "torch" in sys.modules else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
