"""Removes whole residual blocks, the least important first."""

from __future__ import annotations

import math

from compress.data.dataset import Split
from compress.networks.artifact import Artifact
from compress.pruning.prunable_network import removable_blocks, without
from compress.training.evaluation import mean_loss
from hw_profiles.devices.device import Device
from hw_profiles.profiling import profile


def without_weakest_block(artifact: Artifact, split: Split, device: Device, precision: str) -> Artifact | None:
    """The artifact without the block whose leaving raises the loss on the images least for each predicted millisecond
    that it saves; None where no block can leave or none saves time.
    """
    loss, latency_ms = _loss(artifact, split), profile(artifact.source, device, precision).latency_ms
    best, least = None, math.inf
    for place in removable_blocks(artifact):
        shallower = without(artifact, place)
        saved_ms = latency_ms - profile(shallower.source, device, precision).latency_ms
        if saved_ms > 0 and (cost := (_loss(shallower, split) - loss) / saved_ms) < least:
            best, least = shallower, cost
    return best


def _loss(artifact: Artifact, split: Split) -> float:
    return mean_loss(artifact.model(), split, artifact.preprocessing)
