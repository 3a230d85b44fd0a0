"""Samples of the search spaces, some narrowed as pruning does: the networks that `nas devices measure` times."""

from __future__ import annotations

import random

import numpy as np
import torch

from compress.pruning.arch_widths import prunable_groups, pruned_arch
from hw_profiles.network.workload import Workload
from search_spaces import Arch, list_spaces, sample

_RESOLUTIONS = (32, 48, 64, 96, 128, 160, 192, 224)
_CLASSES = (2, 10, 10, 100, 1000)
_FIRST_SEED = 1_000_000  # no sample that anybody draws by counting from 0


def space_network(number: int) -> Workload:
    """A network of a space, at a random image size; every second one is pruned to widths on no grid.

    >>> space_network(0).shapes["input"], space_network(5).shapes["input"]
    ((1, 3, 192, 192), (1, 3, 96, 96))
    """
    draw = random.Random(number)
    spaces = list_spaces()
    side, classes = draw.choice(_RESOLUTIONS), draw.choice(_CLASSES)
    arch = sample(
        spaces[number % len(spaces)], seed=_FIRST_SEED + number, input_shape=(3, side, side), num_classes=classes
    )
    return (narrowed(arch, number) if number // len(spaces) % 2 else arch).workload()


def narrowed(arch: Arch, seed: int) -> Arch:
    """The Arch with 40 to 100% of the channels of each of its groups left, at random."""
    generator = np.random.default_rng(seed)
    groups = prunable_groups(arch)
    kept = {}
    for group in groups.prunable():
        width = groups.width[group]
        kept[group] = torch.arange(max(1, round(width * generator.uniform(0.4, 1.0))))
    return pruned_arch(arch, groups, kept)
