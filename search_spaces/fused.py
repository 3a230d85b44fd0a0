"""The space ``fused``: dense convolutions early, depthwise ones late, for CPUs with wide vector units and GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.spec import BlockSpec
from search_spaces.arch import Arch
from search_spaces.layout import assemble, block, resolutions
from search_spaces.space import Choice, Space

_DENSE = ("residual", "fused_inverted_residual")
_KINDS = (_DENSE, _DENSE, (*_DENSE, "inverted_residual"), ("fused_inverted_residual", "inverted_residual"))
_WIDTHS = ((16, 24, 32), (32, 48, 64), (64, 96, 128), (96, 128, 192, 256))


def fused(input_shape: tuple[int, int, int], num_classes: int) -> Space:
    """Four stages: residual or fused inverted residual blocks first, inverted residuals in the last two (2104.00298).

    ReLU throughout and no squeeze-excite, so that every layer fuses and int8 pays.

    >>> fused((3, 32, 32), 10).choices["stage0.block"]
    ('residual', 'fused_inverted_residual')
    """
    choices: dict[str, tuple[Choice, ...]] = {
        "resolution": resolutions(min(input_shape[1:])),
        "stem.width": (16, 24, 32),
        "head.width": (0, 256, 512),
    }
    for i, widths in enumerate(_WIDTHS):
        choices |= {
            f"stage{i}.block": _KINDS[i],
            f"stage{i}.expansion": (2, 3, 4),
            f"stage{i}.depth": (1, 2, 3),
            f"stage{i}.width": widths,
        }

    def build(params: Mapping[str, Any]) -> Arch:
        resolved = {**params, "activation": "relu"}
        return assemble(resolved, input_shape, num_classes, halving=(True,) * len(_WIDTHS), block_of=_block)

    return Space(name="fused", choices=choices, build=build)


def _block(params: Mapping[str, Any], stage: int, in_channels: int, stride: int) -> BlockSpec:
    width, expansion = params[f"stage{stage}.width"], params[f"stage{stage}.expansion"]
    return block(params[f"stage{stage}.block"], in_channels, width, stride, expansion=expansion)
