"""Blocks: the contract, and timm's own blocks with the same weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from timm.models._efficientnet_blocks import (
    ConvBnAct,
    DepthwiseSeparableConv,
    EdgeResidual,
    SqueezeExcite,
)
from timm.models._efficientnet_blocks import (
    InvertedResidual as TimmInvertedResidual,
)
from timm.models.resnet import BasicBlock
from torch import nn

from blocks import BLOCKS, BlockSpec, build_block
from blocks.attention import SqueezeExcite as OurSqueezeExcite
from search_spaces.lowering import LOWERINGS
from tests.contracts import check_block, with_random_statistics

ACT = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hard_swish": nn.Hardswish, "silu": nn.SiLU}


def spec_of(kind: str, **changes: object) -> BlockSpec:
    mid = 0 if kind in ("conv", "separable", "pooled_conv") else 24
    return replace(BlockSpec(kind=kind, in_channels=8, out_channels=8, mid_channels=mid), **changes)


SPECS = [
    pytest.param(spec_of(kind, stride=stride, shortcut=shortcut, activation=activation, padding=padding, **se), id=f"{kind}-{stride}-{shortcut}-{activation}-{padding}-{bool(se)}")
    for kind in BLOCKS
    for stride, shortcut in ((1, "none" if kind == "pooled_conv" else "identity"), (2, "projection" if kind == "residual" else "none"))
    for activation, padding in (("relu6", "symmetric"), ("hard_swish", "same"), ("silu", "symmetric"))
    for se in ({}, {"se_channels": 4, "gate": "hard_sigmoid"})
    if not (se and kind in ("conv", "residual", "pooled_conv"))
    if not (kind == "pooled_conv" and (stride, padding) != (1, "symmetric"))
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_every_block_keeps_the_contract(spec: BlockSpec) -> None:
    check_block(spec)


def test_every_block_has_a_lowering() -> None:
    assert set(BLOCKS) == set(LOWERINGS)


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """By place: both modules list their tensors in the order of the computation."""
    values = [v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")]
    names = [k for k in target.state_dict() if not k.endswith("num_batches_tracked")]
    assert [v.shape for v in values] == [target.state_dict()[k].shape for k in names]
    target.load_state_dict(dict(zip(names, values, strict=True)), strict=False)


def assert_equal_outputs(ours: nn.Module, theirs: nn.Module, channels: int = 8) -> None:
    with_random_statistics(theirs)
    copy_weights(theirs, ours.eval())
    x = torch.randn(2, channels, 15, 14, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_swish", "silu"])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("stride", [1, 2])
def test_inverted_residual_is_timms(activation: str, kernel_size: int, padding: str, stride: int) -> None:
    spec = BlockSpec(
        kind="inverted_residual", in_channels=8, out_channels=8, mid_channels=32, kernel_size=kernel_size, stride=stride,
        activation=activation, padding=padding, shortcut="identity" if stride == 1 else "none", norm_eps=1e-3,
    )  # fmt: skip
    theirs = TimmInvertedResidual(
        8, 8, dw_kernel_size=kernel_size, stride=stride, pad_type="same" if padding == "same" else "", exp_ratio=4.0,
        act_layer=ACT[activation], norm_layer=partial(nn.BatchNorm2d, eps=1e-3),
    )  # fmt: skip
    assert_equal_outputs(build_block(spec), theirs)


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
def test_inverted_residual_with_squeeze_excite_is_timms(gate: str) -> None:
    spec = BlockSpec(
        kind="inverted_residual", in_channels=8, out_channels=12, mid_channels=32, se_channels=8, gate=gate,
        activation="hard_swish",
    )  # fmt: skip
    layer = {"sigmoid": nn.Sigmoid, "hard_sigmoid": nn.Hardsigmoid}[gate]
    theirs = TimmInvertedResidual(
        8, 12, exp_ratio=4.0, act_layer=nn.Hardswish,
        se_layer=lambda c, **kwargs: SqueezeExcite(c, rd_channels=8, act_layer=nn.ReLU, gate_layer=layer),
    )  # fmt: skip
    assert_equal_outputs(build_block(spec), theirs)


def test_squeeze_excite_is_timms() -> None:
    theirs = SqueezeExcite(8, rd_channels=2, act_layer=nn.SiLU, gate_layer=nn.Sigmoid)
    assert_equal_outputs(OurSqueezeExcite(8, 2, activation="silu"), theirs)


@pytest.mark.parametrize("pointwise_act", [False, True])
def test_separable_is_timms(pointwise_act: bool) -> None:
    spec = BlockSpec(
        kind="separable", in_channels=8, out_channels=8, output_activation="relu" if pointwise_act else "none",
        shortcut="identity",
    )  # fmt: skip
    assert_equal_outputs(build_block(spec), DepthwiseSeparableConv(8, 8, pw_act=pointwise_act))


@pytest.mark.parametrize("stride", [1, 2])
def test_fused_inverted_residual_is_timms(stride: int) -> None:
    spec = BlockSpec(
        kind="fused_inverted_residual", in_channels=8, out_channels=8, mid_channels=32, stride=stride, activation="silu",
        shortcut="identity" if stride == 1 else "none",
    )  # fmt: skip
    assert_equal_outputs(build_block(spec), EdgeResidual(8, 8, stride=stride, exp_ratio=4.0, act_layer=nn.SiLU))


def test_conv_is_timms() -> None:
    spec = BlockSpec(kind="conv", in_channels=8, out_channels=8, kernel_size=5, shortcut="identity")
    assert_equal_outputs(build_block(spec), ConvBnAct(8, 8, kernel_size=5, skip=True))


@pytest.mark.parametrize("stride", [1, 2])
def test_residual_is_timms(stride: int) -> None:
    side = nn.Sequential(nn.Conv2d(8, 16, 1, stride=stride, bias=False), nn.BatchNorm2d(16))
    spec = BlockSpec(
        kind="residual", in_channels=8, out_channels=16, mid_channels=16, stride=stride, shortcut="projection"
    )
    assert_equal_outputs(build_block(spec), BasicBlock(8, 16, stride=stride, downsample=side))


@pytest.mark.parametrize("activation", ["relu", "hard_swish"])
def test_pooled_conv_is_a_linear_layer_of_the_means(activation: str) -> None:
    block = build_block(BlockSpec(kind="pooled_conv", in_channels=8, out_channels=5, activation=activation))
    linear = nn.Linear(8, 5)
    with torch.no_grad():
        linear.weight.copy_(block.get_parameter("conv.weight").flatten(1))
        linear.bias.copy_(block.get_parameter("conv.bias"))
    x = torch.randn(2, 8, 7, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(block(x).flatten(1), ACT[activation]()(linear(x.mean((2, 3)))))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"in_channels": 0}, "in_channels must be an integer of at least 1"),
        ({"stride": True}, "stride must be an integer"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"shortcut": "identity", "stride": 2}, "needs stride 1"),
        ({"norm_eps": 0.0}, "norm_eps must be above 0"),
    ],
)
def test_impossible_specs_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spec_of("conv", **changes)


def test_unknown_kinds_and_fields_are_named() -> None:
    with pytest.raises(ValueError, match=r"must be one of conv, .* got 'dense'"):
        build_block(replace(spec_of("conv"), kind="dense"))
    with pytest.raises(ValueError, match="dilation"):
        BlockSpec.from_dict({**spec_of("conv").to_dict(), "dilation": 2})
