"""A space of one network with trained weights: only its resolution is searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_spaces.arch import Arch
from search_spaces.layout import resized, resolutions
from search_spaces.presets import preset
from search_spaces.space import Space

_SMALLEST_SIDE = 32  # the networks halve the image five times
_ENLARGED_BELOW = 96


def pretrained_space(name: str, weights: Path | str, input_shape: tuple[int, int, int], num_classes: int) -> Space:
    """The preset ``name`` with a file of timm's weights, at the data's side, at smaller ones, and at twice a small one.

    Every Arch of it carries the file, so ``build_model`` begins with the trained weights.

    Raises:
        InputError: no preset has that name, or the file does not hold its weights.

    >>> pretrained_space("mobilenetv2_100", "no_such_file.pth", (3, 32, 32), 10)
    Traceback (most recent call last):
    hw_profiles.errors.InputError: no_such_file.pth: must be a file of weights
    """
    arch = preset(name, input_shape=input_shape, num_classes=num_classes, weights=weights)
    side = min(input_shape[1:])
    enlarged = (2 * side,) if side < _ENLARGED_BELOW else ()

    def build(params: Mapping[str, Any]) -> Arch:
        return replace(arch, input_shape=resized(input_shape, params["resolution"]))

    choices = {"resolution": (*resolutions(side, _SMALLEST_SIDE), *enlarged)}
    return Space(name=f"pretrained {name}", choices=choices, build=build)
