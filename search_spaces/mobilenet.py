"""The space ``mobilenet``: blocks of the MobileNet and EfficientNet families, and plain residual ones, for phones and
CPUs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from blocks.spec import BlockSpec
from search_spaces.arch import Arch
from search_spaces.space import Choice, Space

_WIDTHS = ((8, 16, 24, 32), (16, 24, 32, 48), (32, 48, 64, 96), (64, 96, 128, 192))
_KINDS = ("separable", "inverted_residual", "fused_inverted_residual", "residual")
_DEPTHWISE = ("separable", "inverted_residual")
_SMALLEST_SIDE = 8


def mobilenet(input_shape: tuple[int, int, int], num_classes: int) -> Space:
    """Four stages after a stem, each with its own block, kernel, expansion, depth, width and squeeze-excite.

    The blocks are separable, inverted residual, fused inverted residual, and the plain residual one, which runs best
    where wide vector units make dense convolutions cheap; a choice that a block has no use for changes nothing.

    One activation (hard-swish, ReLU, ReLU6 or SiLU) for the whole network, three resolutions up to the data's own.
    Strides are spread so that the last stage sees about 4×4 positions, at most 32 pixels apart.

    >>> mobilenet((3, 32, 32), 10).choices["resolution"]
    (32, 24, 16)
    """
    choices: dict[str, tuple[Choice, ...]] = {
        "resolution": _resolutions(min(input_shape[1:])),
        "activation": ("relu", "relu6", "hard_swish", "silu"),
        "stem.width": (8, 16, 24),
        "head.width": (0, 128, 256),
    }
    for i, widths in enumerate(_WIDTHS):
        choices |= {
            f"stage{i}.block": _KINDS,
            f"stage{i}.kernel": (3, 5, 7),
            f"stage{i}.expansion": (2, 3, 4, 6),
            f"stage{i}.depth": (1, 2, 3),
            f"stage{i}.width": widths,
            f"stage{i}.se": (False, True),
        }

    def build(params: Mapping[str, Any]) -> Arch:
        return _build(params, input_shape, num_classes)

    return Space(name="mobilenet", choices=choices, build=build)


def _build(params: Mapping[str, Any], input_shape: tuple[int, int, int], num_classes: int) -> Arch:
    channels, height, width = input_shape
    scale = params["resolution"] / min(height, width)
    shape = (channels, max(1, round(height * scale)), max(1, round(width * scale)))
    stem_stride, strides = _strides(params["resolution"])
    stem = BlockSpec(
        kind="conv",
        in_channels=channels,
        out_channels=params["stem.width"],
        stride=stem_stride,
        activation=params["activation"],
    )
    stages, features = [], stem.out_channels
    for i, stride in enumerate(strides):
        stage = _stage(params, i, features, stride)
        stages.append(stage)
        features = stage[-1].out_channels
    head = None
    if params["head.width"]:
        head = BlockSpec(
            kind="conv",
            in_channels=features,
            out_channels=params["head.width"],
            kernel_size=1,
            activation=params["activation"],
        )
    return Arch(input_shape=shape, stem=stem, stages=tuple(stages), head=head, num_classes=num_classes)


def _stage(params: Mapping[str, Any], i: int, in_channels: int, stride: int) -> tuple[BlockSpec, ...]:
    kind, width = params[f"stage{i}.block"], params[f"stage{i}.width"]
    blocks = []
    for j in range(params[f"stage{i}.depth"]):
        first = stride if j == 0 else 1
        mid = {"separable": 0, "residual": width}.get(kind, in_channels * params[f"stage{i}.expansion"])
        alike = first == 1 and in_channels == width
        squeezed = params[f"stage{i}.se"] and kind != "residual"
        blocks.append(
            BlockSpec(
                kind=kind,
                in_channels=in_channels,
                out_channels=width,
                mid_channels=mid,
                # A wide kernel is cheap in a depthwise convolution only.
                kernel_size=params[f"stage{i}.kernel"] if kind in _DEPTHWISE else 3,
                stride=first,
                activation=params["activation"],
                se_channels=max(8, (mid or in_channels) // 4) if squeezed else 0,
                gate="hard_sigmoid",
                shortcut="identity" if alike else "projection" if kind == "residual" else "none",
            )
        )
        in_channels = width
    return tuple(blocks)


def _resolutions(side: int) -> tuple[int, ...]:
    """The side itself, and about 3/4 and 1/2 of it in multiples of 8 pixels."""
    smaller = (round(side * share / 8) * 8 for share in (0.75, 0.5))
    return tuple(dict.fromkeys([side, *(s for s in smaller if _SMALLEST_SIDE <= s < side)]))


def _strides(side: int) -> tuple[int, tuple[int, ...]]:
    """Strides of the stem and of the four stages; the late stages halve first."""
    halvings = min(5, max(0, round(math.log2(side / 4))))
    stages = tuple(2 if 4 - i <= halvings else 1 for i in range(4))
    return (2 if halvings == 5 else 1), stages
