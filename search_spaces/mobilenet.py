"""The space ``mobilenet``: blocks of the MobileNet and EfficientNet families, and plain residual ones, for phones and
CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.spec import BlockSpec
from search_spaces.arch import Arch
from search_spaces.layout import assemble, block, resolutions
from search_spaces.space import Choice, Space

_WIDTHS = ((8, 16, 24, 32), (16, 24, 32, 48), (32, 48, 64, 96), (64, 96, 128, 192))
_KINDS = ("separable", "inverted_residual", "fused_inverted_residual", "residual")
_DEPTHWISE = ("separable", "inverted_residual")


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
        "resolution": resolutions(min(input_shape[1:])),
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
        return assemble(params, input_shape, num_classes, halving=(True,) * len(_WIDTHS), block_of=_block)

    return Space(name="mobilenet", choices=choices, build=build)


def _block(params: Mapping[str, Any], stage: int, in_channels: int, stride: int) -> BlockSpec:
    kind = params[f"stage{stage}.block"]
    expansion = params[f"stage{stage}.expansion"]
    inner = in_channels if kind == "separable" else in_channels * expansion
    squeezed = params[f"stage{stage}.se"] and kind != "residual"
    return block(
        kind,
        in_channels,
        params[f"stage{stage}.width"],
        stride,
        expansion=expansion,
        # A wide kernel is cheap in a depthwise convolution only.
        kernel_size=params[f"stage{stage}.kernel"] if kind in _DEPTHWISE else 3,
        activation=params["activation"],
        se_channels=max(8, inner // 4) if squeezed else 0,
        gate="hard_sigmoid",
    )
