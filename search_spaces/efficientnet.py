"""The space ``efficientnet``: EfficientNet-B0 scaled in width, depth and resolution (1905.11946)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from blocks.spec import BlockSpec
from search_spaces.arch import Arch
from search_spaces.layout import assemble, block, resolutions, round_width
from search_spaces.space import Choice, Space

_STEM, _HEAD = 32, 1280
_STAGES = ((16, 1), (24, 2), (40, 2), (80, 3), (112, 3), (192, 4), (320, 1))  # width, depth
_HALVING = (False, True, True, True, False, True, False)


def efficientnet(input_shape: tuple[int, int, int], num_classes: int) -> Space:
    """Seven stages of inverted residuals with squeeze-excite and SiLU, scaled as one.

    ``width`` and ``depth`` multiply those of EfficientNet-B0, ``resolution`` is up to the data's own. Each stage but
    the first, which is separable, has its own kernel and expansion. Accurate for its operations, slow where gates and
    SiLU are.

    >>> efficientnet((3, 224, 224), 10).choices["depth"]
    (0.3, 0.5, 0.75, 1.0)
    """
    choices: dict[str, tuple[Choice, ...]] = {
        "resolution": resolutions(min(input_shape[1:])),
        "width": (0.25, 0.35, 0.5, 0.75, 1.0),
        "depth": (0.3, 0.5, 0.75, 1.0),
    }
    for i in range(1, len(_STAGES)):
        choices |= {f"stage{i}.kernel": (3, 5), f"stage{i}.expansion": (3, 4, 6)}

    def build(params: Mapping[str, Any]) -> Arch:
        return assemble(_resolved(params), input_shape, num_classes, halving=_HALVING, block_of=_block)

    return Space(name="efficientnet", choices=choices, build=build)


def _resolved(params: Mapping[str, Any]) -> dict[str, Any]:
    """The widths and depths that the two multipliers stand for."""
    width, depth = params["width"], params["depth"]
    resolved = {
        **params,
        "activation": "silu",
        "stem.width": round_width(_STEM * width),
        "head.width": round_width(_HEAD * width),
    }
    for i, (channels, blocks) in enumerate(_STAGES):
        resolved |= {f"stage{i}.width": round_width(channels * width), f"stage{i}.depth": math.ceil(blocks * depth)}
    return resolved


def _block(params: Mapping[str, Any], stage: int, in_channels: int, stride: int) -> BlockSpec:
    kind = "inverted_residual" if stage else "separable"
    return block(
        kind,
        in_channels,
        params[f"stage{stage}.width"],
        stride,
        expansion=params[f"stage{stage}.expansion"] if stage else 1,
        kernel_size=params[f"stage{stage}.kernel"] if stage else 3,
        activation="silu",
        se_channels=in_channels // 4,
        se_activation="silu",
    )
