"""Lowers a block to operations, without torch.

The names follow the modules of ``build_model``: the convolution of the module ``stages.2.1.expand`` is the operation
``stages.2.1.expand``, so that weights and channels are found by place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from blocks.custom import CUSTOM_BLOCKS, REGISTERED_BY, BlockClass, unknown_kind
from blocks.spec import BlockSpec, same_padding
from hw_profiles.errors import InputError
from hw_profiles.network.workload import WorkloadBuilder

Lowering = Callable[[WorkloadBuilder, str, str, BlockSpec], str]


def lower_block(builder: WorkloadBuilder, name: str, x: str, spec: BlockSpec) -> str:
    """Append the operations of one block that reads tensor ``x``; returns the name of its output."""
    if spec.kind not in LOWERINGS:
        raise InputError(unknown_kind(spec.kind, LOWERINGS))
    return LOWERINGS[spec.kind](builder, name, x, spec)


def register_block(kind: str, block_class: BlockClass, lowering: Lowering) -> None:
    """Register a custom block under the name ``kind``, so that spaces and ``build_model`` can use it.

    ``block_class(spec)`` builds the module; ``lowering(builder, name, x, spec)`` appends its operations and returns the
    name of its output. A convolution of the submodule ``p`` is the operation ``name.p``. Call it where the space is
    defined. A ``block_class`` that is a function may import torch when it is called.

    Raises:
        InputError: there is a block of that kind, or the kind is not a name.

    >>> register_block("conv", lambda spec: None, _conv)
    Traceback (most recent call last):
    hw_profiles.errors.InputError: register_block: kind 'conv' is already registered
    """
    if not isinstance(kind, str) or not kind.isidentifier():
        raise InputError(f"register_block: kind must be a name such as 'bottleneck', got {kind!r}")
    if kind in LOWERINGS:
        raise InputError(f"register_block: kind {kind!r} is already registered")
    LOWERINGS[kind] = lowering
    CUSTOM_BLOCKS[kind] = block_class
    REGISTERED_BY[kind] = sys._getframe(1).f_globals["__name__"]


def conv_norm_act(
    builder: WorkloadBuilder,
    name: str,
    x: str,
    out_channels: int,
    spec: BlockSpec,
    *,
    kernel_size: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: str = "none",
) -> str:
    """Append what a ``ConvNormAct`` of that name computes, padded as the spec says; returns its output's name.

    >>> builder = WorkloadBuilder("input", (1, 3, 8, 8))
    >>> conv_norm_act(builder, "stem", "input", 4, BlockSpec(kind="conv", in_channels=3, out_channels=4))
    'stem'
    """
    padding = None
    if spec.padding == "same":
        _, _, height, width = builder.shapes[x]
        top, bottom = same_padding(height, kernel_size, stride)
        left, right = same_padding(width, kernel_size, stride)
        padding = (top, left, bottom, right)
    y = builder.conv(
        name,
        x,
        out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        groups=groups,
        normalized=True,
    )
    return builder.activation(f"{name}.act", y, activation)


def _squeeze_excite(builder: WorkloadBuilder, name: str, x: str, spec: BlockSpec) -> str:
    if not spec.se_channels:
        return x
    channels = builder.shapes[x][1]
    y = builder.global_avg_pool(f"{name}.pool", x)
    y = builder.conv(f"{name}.reduce", y, spec.se_channels, kernel_size=1)
    y = builder.activation(f"{name}.act", y, spec.se_activation)
    y = builder.conv(f"{name}.expand", y, channels, kernel_size=1)
    y = builder.activation(f"{name}.gate", y, spec.gate)
    return builder.binary(f"{name}.scale", "mul", x, y)


def _shortcut(builder: WorkloadBuilder, name: str, x: str, y: str, spec: BlockSpec) -> str:
    return builder.binary(f"{name}.add", "add", x, y) if spec.shortcut == "identity" else y


def _conv(builder: WorkloadBuilder, name: str, x: str, spec: BlockSpec) -> str:
    return _shortcut(builder, name, x, _window_conv(builder, name, x, spec.out_channels, spec), spec)


def _residual(builder: WorkloadBuilder, name: str, x: str, spec: BlockSpec) -> str:
    y = _window_conv(builder, f"{name}.conv1", x, spec.mid_channels, spec)
    y = conv_norm_act(builder, f"{name}.conv2", y, spec.out_channels, spec, kernel_size=spec.kernel_size)
    if spec.shortcut == "projection":
        side = conv_norm_act(builder, f"{name}.project", x, spec.out_channels, spec, stride=spec.stride)
        y = builder.binary(f"{name}.add", "add", y, side)
    else:
        y = _shortcut(builder, name, x, y, spec)
    return builder.activation(f"{name}.act", y, spec.activation)


def _separable(builder: WorkloadBuilder, name: str, x: str, spec: BlockSpec) -> str:
    y = _depthwise(builder, name, x, spec)
    y = _squeeze_excite(builder, f"{name}.se", y, spec)
    y = conv_norm_act(builder, f"{name}.project", y, spec.out_channels, spec, activation=spec.output_activation)
    return _shortcut(builder, name, x, y, spec)


def _inverted_residual(builder: WorkloadBuilder, name: str, x: str, spec: BlockSpec) -> str:
    y = conv_norm_act(builder, f"{name}.expand", x, spec.mid_channels, spec, activation=spec.activation)
    y = _depthwise(builder, name, y, spec)
    y = _squeeze_excite(builder, f"{name}.se", y, spec)
    y = conv_norm_act(builder, f"{name}.project", y, spec.out_channels, spec, activation=spec.output_activation)
    return _shortcut(builder, name, x, y, spec)


def _fused_inverted_residual(builder: WorkloadBuilder, name: str, x: str, spec: BlockSpec) -> str:
    y = _window_conv(builder, f"{name}.expand", x, spec.mid_channels, spec)
    y = _squeeze_excite(builder, f"{name}.se", y, spec)
    y = conv_norm_act(builder, f"{name}.project", y, spec.out_channels, spec, activation=spec.output_activation)
    return _shortcut(builder, name, x, y, spec)


def _pooled_conv(builder: WorkloadBuilder, name: str, x: str, spec: BlockSpec) -> str:
    y = builder.global_avg_pool(f"{name}.pool", x)
    y = builder.conv(f"{name}.conv", y, spec.out_channels, kernel_size=1)
    return builder.activation(f"{name}.act", y, spec.activation)


def _depthwise(builder: WorkloadBuilder, name: str, x: str, spec: BlockSpec) -> str:
    channels = builder.shapes[x][1]
    return _window_conv(builder, f"{name}.depthwise", x, channels, spec, groups=channels)


def _window_conv(
    builder: WorkloadBuilder, name: str, x: str, out_channels: int, spec: BlockSpec, *, groups: int = 1
) -> str:
    """The convolution of a block that has its window, stride and activation."""
    return conv_norm_act(
        builder,
        name,
        x,
        out_channels,
        spec,
        kernel_size=spec.kernel_size,
        stride=spec.stride,
        groups=groups,
        activation=spec.activation,
    )


LOWERINGS: dict[str, Lowering] = {
    "conv": _conv,
    "residual": _residual,
    "separable": _separable,
    "inverted_residual": _inverted_residual,
    "fused_inverted_residual": _fused_inverted_residual,
    "pooled_conv": _pooled_conv,
}
