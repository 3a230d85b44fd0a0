"""A space of sub-networks of one pretrained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_spaces.arch import Arch
from search_spaces.layout import resized, resolutions
from search_spaces.presets import preset
from search_spaces.scaled import scaled
from search_spaces.space import Choice, Space

_SMALLEST_SIDE = 32  # the networks halve the image five times
_ENLARGED_BELOW = 96
_WIDTHS, _DEPTHS = (1.0, 0.75, 0.5, 0.35, 0.25), (1.0, 0.6, 0.3)


def pretrained_space(name: str, weights: Path | str, input_shape: tuple[int, int, int], num_classes: int) -> Space:
    """The preset ``name`` with a file of timm's weights, and smaller ones that begin with a part of them.

    ``width`` multiplies all channels, ``depth`` the blocks of each stage, ``kernel`` is the largest kernel where the
    preset has larger ones than 3×3. ``resolution`` is the data's side, smaller ones, and twice a small one. Every Arch
    carries the file, of which ``build_model`` takes what belongs to it.

    Raises:
        InputError: no preset has that name, or the file does not hold its weights.

    >>> pretrained_space("mobilenetv2_100", "no_such_file.pth", (3, 32, 32), 10)
    Traceback (most recent call last):
    hw_profiles.errors.InputError: no_such_file.pth: must be a file of weights
    """
    arch = preset(name, input_shape=input_shape, num_classes=num_classes, weights=weights)
    side = min(input_shape[1:])
    enlarged = (2 * side,) if side < _ENLARGED_BELOW else ()
    kernels = sorted({3, max(spec.kernel_size for _, spec in arch.blocks())}, reverse=True)
    choices: dict[str, tuple[Choice, ...]] = {
        "resolution": (*resolutions(side, _SMALLEST_SIDE), *enlarged),
        "width": _WIDTHS,
        "depth": _DEPTHS,
        **({"kernel": tuple(kernels)} if len(kernels) > 1 else {}),
    }

    def build(params: Mapping[str, Any]) -> Arch:
        small = scaled(arch, width=params["width"], depth=params["depth"], largest_kernel=params.get("kernel", 3))
        return replace(small, input_shape=resized(input_shape, params["resolution"]))

    return Space(name=f"pretrained {name}", choices=choices, build=build)
