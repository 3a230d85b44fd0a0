"""A space of networks that train in seconds and are wide enough to be pruned: ``--space tests.small_space:small``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks import BlockSpec
from search_spaces import Arch, Space
from search_spaces.layout import assemble, block

NAME = "tests.small_space:small"


def small(input_shape: tuple[int, int, int], num_classes: int) -> Space:
    """Two stages of one plain residual or separable block each, at the size of the images."""
    choices = {
        "stem.width": (16, 32),
        "stage0.block": ("residual", "separable"),
        "stage0.width": (32, 48, 64),
        "stage1.width": (48, 64, 96),
    }

    def build(params: Mapping[str, Any]) -> Arch:
        fixed = {"resolution": min(input_shape[1:]), "activation": "relu", "head.width": 0}
        depths = {"stage0.depth": 1, "stage1.depth": 1}

        return assemble({**params, **fixed, **depths}, input_shape, num_classes, halving=(True, True), block_of=_block)

    return Space(name="small", choices=choices, build=build)


def _block(params: Mapping[str, Any], stage: int, in_channels: int, stride: int) -> BlockSpec:
    return block(params.get(f"stage{stage}.block", "residual"), in_channels, params[f"stage{stage}.width"], stride)
