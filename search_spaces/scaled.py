"""Scales a known network down in width, depth and kernel size."""

from __future__ import annotations

import math
from dataclasses import replace

from blocks.spec import BlockSpec
from search_spaces.arch import Arch
from search_spaces.layout import round_width


def scaled(arch: Arch, *, width: float = 1.0, depth: float = 1.0, largest_kernel: int = 5) -> Arch:
    """The Arch with ``width`` times the channels everywhere, in multiples of 8, and ``depth`` times the blocks.

    Of each stage the first blocks stay, one at least. Larger kernels become ``largest_kernel``. Nothing becomes wider
    than it was, and no shortcut is added, so that each layer is a part of the one that it was made from.

    >>> from search_spaces import preset
    >>> small = scaled(preset("mobilenetv2_100"), width=0.5, depth=0.3)
    >>> [len(stage) for stage in small.stages], small.features
    ([1, 1, 1, 2, 1, 1, 1], 640)
    """

    def smaller(spec: BlockSpec, in_channels: int) -> BlockSpec:
        return replace(
            spec,
            in_channels=in_channels,
            out_channels=_fewer(spec.out_channels, width),
            mid_channels=_fewer(spec.mid_channels, width),
            se_channels=_fewer(spec.se_channels, width),
            kernel_size=min(spec.kernel_size, largest_kernel),
        )

    stem = smaller(arch.stem, arch.stem.in_channels)
    stages, channels = [], stem.out_channels
    for stage in arch.stages:
        blocks = []
        for spec in stage[: max(1, math.ceil(len(stage) * depth))]:
            blocks.append(smaller(spec, channels))
            channels = blocks[-1].out_channels
        stages.append(tuple(blocks))
    head = None if arch.head is None else smaller(arch.head, channels)
    return replace(arch, stem=stem, stages=tuple(stages), head=head)


def _fewer(channels: int, width: float) -> int:
    return min(channels, round_width(channels * width)) if channels else 0
