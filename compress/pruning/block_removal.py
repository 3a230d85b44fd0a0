"""Removes whole residual blocks, the least important first."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from compress.data.dataset import Split
from compress.networks.artifact import Artifact
from compress.training.evaluation import mean_loss
from hw_profiles.devices.device import Device
from hw_profiles.errors import InputError
from hw_profiles.profiling import profile
from search_spaces.arch import Arch

_PLACE = re.compile(r"stages\.(\d+)\.(\d+)\.(.*)")


def removable_blocks(arch: Arch) -> list[str]:
    """Places of the blocks whose input can take the place of their output: those with an identity shortcut, in a stage
    that has another block.

    >>> from search_spaces import preset
    >>> removable_blocks(preset("mobilenetv2_100"))[:2]
    ['stages.1.1', 'stages.2.1']
    """
    return [
        f"stages.{i}.{j}"
        for i, stage in enumerate(arch.stages)
        for j, spec in enumerate(stage)
        if len(stage) > 1 and spec.shortcut == "identity"
    ]


def without_block(artifact: Artifact, place: str) -> Artifact:
    """The artifact with one block less; the later blocks of its stage move up by one place.

    Raises:
        InputError: the block's input cannot take the place of its output.
    """
    arch = artifact.arch
    if place not in removable_blocks(arch):
        raise InputError(
            f"a block that leaves must be one of {', '.join(removable_blocks(arch)) or 'none'}, got {place!r}"
        )
    i, j = map(int, place.split(".")[1:])
    stage = arch.stages[i]
    stages = (*arch.stages[:i], (*stage[:j], *stage[j + 1 :]), *arch.stages[i + 1 :])
    return replace(artifact, source=replace(arch, stages=stages), weights=_moved(artifact.weights, i, j))


def _moved(weights: Mapping[str, Tensor], stage: int, gone: int) -> dict[str, Tensor]:
    moved = {}
    for key, value in weights.items():
        match = _PLACE.fullmatch(key)
        if match is None or int(match[1]) != stage or int(match[2]) < gone:
            moved[key] = value
        elif int(match[2]) > gone:
            moved[f"stages.{stage}.{int(match[2]) - 1}.{match[3]}"] = value
    return moved


def without_weakest_block(artifact: Artifact, split: Split, device: Device, precision: str) -> Artifact | None:
    """The artifact without the block whose leaving raises the loss on the images least for each predicted millisecond
    that it saves; None where no block can leave or none saves time.
    """
    loss, latency_ms = _loss(artifact, split), profile(artifact.arch, device, precision).latency_ms
    best, least = None, math.inf
    for place in removable_blocks(artifact.arch):
        shallower = without_block(artifact, place)
        saved_ms = latency_ms - profile(shallower.arch, device, precision).latency_ms
        if saved_ms > 0 and (cost := (_loss(shallower, split) - loss) / saved_ms) < least:
            best, least = shallower, cost
    return best


def _loss(artifact: Artifact, split: Split) -> float:
    return mean_loss(artifact.model(), split, artifact.preprocessing)
