"""The space ``tiny``: networks for microcontrollers, whose RAM is counted in kilobytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.spec import BlockSpec
from search_spaces.arch import Arch
from search_spaces.layout import assemble, block, resolutions
from search_spaces.space import Choice, Space

_WIDTHS = ((8, 16), (8, 16, 24), (16, 24, 32, 48), (24, 32, 48, 64))
_LARGEST_SIDE = 96


def tiny(input_shape: tuple[int, int, int], num_classes: int) -> Space:
    """Four narrow stages of separable, inverted residual or plain convolutions with ReLU6.

    No squeeze-excite, kernels of 3 and images of at most 96 pixels: what integer kernels for Cortex-M do well. A
    separable block is that of MobileNetV1, with an activation after the pointwise convolution and no shortcut.

    >>> tiny((3, 224, 224), 2).choices["resolution"]
    (96, 72, 48)
    """
    choices: dict[str, tuple[Choice, ...]] = {
        "resolution": resolutions(min(_LARGEST_SIDE, *input_shape[1:])),
        "stem.width": (8, 16),
        "head.width": (0, 32, 64),
    }
    for i, widths in enumerate(_WIDTHS):
        choices |= {
            f"stage{i}.block": ("separable", "inverted_residual", "conv"),
            f"stage{i}.expansion": (2, 3, 4),
            f"stage{i}.depth": (1, 2),
            f"stage{i}.width": widths,
        }

    def build(params: Mapping[str, Any]) -> Arch:
        resolved = {**params, "activation": "relu6"}
        return assemble(resolved, input_shape, num_classes, halving=(True,) * len(_WIDTHS), block_of=_block)

    return Space(name="tiny", choices=choices, build=build)


def _block(params: Mapping[str, Any], stage: int, in_channels: int, stride: int) -> BlockSpec:
    kind = params[f"stage{stage}.block"]
    as_in_v1 = {"output_activation": "relu6", "shortcut": "none"} if kind == "separable" else {}
    return block(
        kind,
        in_channels,
        params[f"stage{stage}.width"],
        stride,
        expansion=params[f"stage{stage}.expansion"],
        activation="relu6",
        **as_in_v1,
    )
