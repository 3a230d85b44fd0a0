"""Helpers that spaces and presets share: assembling blocks, and where the resolution is halved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blocks.spec import BlockSpec
from search_spaces.arch import Arch

BlockOf = Callable[[Mapping[str, Any], int, int, int], BlockSpec]  # params, stage, in_channels, stride -> block

_INNER_CHANNELS = ("inverted_residual", "fused_inverted_residual")


def block(
    kind: str, in_channels: int, out_channels: int, stride: int, *, expansion: float = 1.0, **fields: Any
) -> BlockSpec:
    """A block with the inner channels and the shortcut that its kind has; ``fields`` are those of BlockSpec.

    >>> block("inverted_residual", 16, 16, 1, expansion=3, activation="relu6").shortcut
    'identity'
    """
    mid = round_width(in_channels * expansion) if kind in _INNER_CHANNELS else 0
    alike = stride == 1 and in_channels == out_channels
    shortcut = "identity" if alike else "projection" if kind == "residual" else "none"
    inner = {"mid_channels": out_channels if kind == "residual" else mid, "shortcut": shortcut}
    return BlockSpec(
        kind=kind, in_channels=in_channels, out_channels=out_channels, stride=stride, **{**inner, **fields}
    )


def assemble(
    params: Mapping[str, Any],
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    halving: Sequence[bool],
    block_of: BlockOf,
) -> Arch:
    """The Arch of a space's ``params``: stem, a stage for each of ``halving``, head.

    It reads ``resolution``, ``activation``, ``stem.width``, ``head.width`` (0: no head) and ``stage{i}.depth``;
    ``halving`` says which stages may halve the image.
    """
    resolution, activation = params["resolution"], params["activation"]
    stem_stride, strides = spread_strides(resolution, halving)
    stem = BlockSpec(
        kind="conv",
        in_channels=input_shape[0],
        out_channels=params["stem.width"],
        stride=stem_stride,
        activation=activation,
    )
    stages, channels = [], stem.out_channels
    for i, stride in enumerate(strides):
        stage = []
        for j in range(params[f"stage{i}.depth"]):
            stage.append(block_of(params, i, channels, stride if j == 0 else 1))
            channels = stage[-1].out_channels
        stages.append(tuple(stage))
    head = None
    if params["head.width"]:
        head = BlockSpec(
            kind="conv", in_channels=channels, out_channels=params["head.width"], kernel_size=1, activation=activation
        )
    return Arch(
        input_shape=resized(input_shape, resolution),
        stem=stem,
        stages=tuple(stages),
        head=head,
        num_classes=num_classes,
    )


def resolutions(side: int, smallest: int = 8) -> tuple[int, ...]:
    """The side itself, and about 3/4 and 1/2 of it in multiples of 8 pixels, not below ``smallest``.

    >>> resolutions(32)
    (32, 24, 16)
    """
    smaller = (round(side * share / 8) * 8 for share in (0.75, 0.5))
    return tuple(dict.fromkeys([side, *(s for s in smaller if smallest <= s < side)]))


def resized(input_shape: tuple[int, int, int], resolution: int) -> tuple[int, int, int]:
    """The shape whose shorter side is ``resolution``.

    >>> resized((3, 96, 64), 32)
    (3, 48, 32)
    """
    channels, height, width = input_shape
    scale = resolution / min(height, width)
    return (channels, max(1, round(height * scale)), max(1, round(width * scale)))


def spread_strides(side: int, halving: Sequence[bool]) -> tuple[int, tuple[int, ...]]:
    """Strides of the stem and of the stages so that the last ones see about 4×4 positions, at most 32 pixels apart.

    Of the stages that may halve the image the late ones do so first, the stem last.

    >>> spread_strides(32, (True, True, True, True))
    (1, (1, 2, 2, 2))
    """
    halvings = min(5, max(0, round(math.log2(side / 4))))
    left, strides = halvings, []
    for may in reversed(halving):
        strides.append(2 if may and left > 0 else 1)
        left -= strides[-1] - 1
    return (2 if left > 0 else 1), tuple(reversed(strides))


def round_width(width: float, multiple: int = 8) -> int:
    """The nearest multiple, at least one, never less than 90 % of ``width``.

    >>> round_width(11.2), round_width(33.6)
    (16, 32)
    """
    rounded = max(multiple, int(width + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * width else rounded
