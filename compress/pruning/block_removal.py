"""Removes whole residual blocks, the least important first."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from compress.data.dataset import Split
from compress.networks.artifact import Artifact
from compress.networks.module_copy import copied
from compress.networks.network_source import with_module
from compress.networks.slice_channels import REMOVED, cut_module
from compress.training.evaluation import mean_loss
from hw_profiles.devices.device import Device
from hw_profiles.errors import InputError
from hw_profiles.network.workload import Workload
from hw_profiles.profiling import profile
from search_spaces.arch import Arch

_PLACE = re.compile(r"stages\.(\d+)\.(\d+)\.(.*)")


def removable_blocks(artifact: Artifact) -> list[str]:
    """Places of the blocks whose input can take the place of their output: those with an identity shortcut, in a stage
    that has another block. In any module a block is what a Sequential or ModuleList has several of.

    >>> from compress import Preprocessing
    >>> from search_spaces import build_model, preset
    >>> arch = preset("mobilenetv2_100", num_classes=2)
    >>> record = Preprocessing(channels=3, sizes=((32, 32),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=("a", "b"))
    >>> removable_blocks(Artifact(source=arch, weights={}, preprocessing=record).with_model(build_model(arch)))[:2]
    ['stages.1.1', 'stages.2.1']
    """
    if not isinstance(artifact.source, Arch):
        model, image = artifact.model(), torch.zeros(1, *artifact.source.input_shape)
        with torch.inference_mode():
            made = copied(model)(image).shape
            places = _residual_blocks(model, artifact.source.workload())
            return [place for place in places if _runs(model, place, image, made)]
    return [
        f"stages.{i}.{j}"
        for i, stage in enumerate(artifact.arch.stages)
        for j, spec in enumerate(stage)
        if len(stage) > 1 and spec.shortcut == "identity"
    ]


def without_block(artifact: Artifact, place: str) -> Artifact:
    """The artifact with one block less; the later blocks of a stage of an Arch move up by one place, in any other
    module an identity takes its place.

    Raises:
        InputError: the block's input cannot take the place of its output.
    """
    places = removable_blocks(artifact)
    if place not in places:
        raise InputError(f"the block to remove must be one of {', '.join(places) or 'none'}, got {place!r}")
    return _without(artifact, place)


def without_weakest_block(artifact: Artifact, split: Split, device: Device, precision: str) -> Artifact | None:
    """The artifact without the block whose leaving raises the loss on the images least for each predicted millisecond
    that it saves; None where no block can leave or none saves time.
    """
    loss, latency_ms = _loss(artifact, split), profile(artifact.source, device, precision).latency_ms
    best, least = None, math.inf
    for place in removable_blocks(artifact):
        shallower = _without(artifact, place)
        saved_ms = latency_ms - profile(shallower.source, device, precision).latency_ms
        if saved_ms > 0 and (cost := (_loss(shallower, split) - loss) / saved_ms) < least:
            best, least = shallower, cost
    return best


def _without(artifact: Artifact, place: str) -> Artifact:
    source = artifact.source
    if isinstance(source, Arch):
        i, j = map(int, place.split(".")[1:])
        stage = source.stages[i]
        stages = (*source.stages[:i], (*stage[:j], *stage[j + 1 :]), *source.stages[i + 1 :])
        return replace(artifact, source=replace(source, stages=stages), weights=_moved(artifact.weights, i, j))
    model = cut_module(artifact.model(), {place + REMOVED: ()})
    return replace(artifact, source=with_module(source, model, {place + REMOVED: ()})).with_model(model)


def _moved(weights: Mapping[str, Tensor], stage: int, gone: int) -> dict[str, Tensor]:
    moved = {}
    for key, value in weights.items():
        match = _PLACE.fullmatch(key)
        if match is None or int(match[1]) != stage or int(match[2]) < gone:
            moved[key] = value
        elif int(match[2]) > gone:
            moved[f"stages.{stage}.{int(match[2]) - 1}.{match[3]}"] = value
    return moved


def _residual_blocks(model: nn.Module, workload: Workload) -> Iterator[str]:
    for name, parent in model.named_modules():
        if isinstance(parent, nn.Sequential | nn.ModuleList):
            blocks = [f"{name}.{key}".lstrip(".") for key, block in parent.named_children() if list(block.children())]
            yield from (block for block in blocks if len(blocks) > 1 and _has_identity_shortcut(workload, block))


def _has_identity_shortcut(workload: Workload, place: str) -> bool:
    """Whether a part reads one tensor, which it also adds, and makes one of the same shape."""
    inside = {op.name: op for op in workload.ops if op.name.startswith(f"{place}.")}
    read = {name for op in inside.values() for name in op.inputs if name not in inside}
    outside = [name for op in workload.ops if op.name not in inside for name in op.inputs]
    made = {name for name in (*outside, workload.output) if name in inside}
    if len(read) != 1 or len(made) != 1 or workload.shapes[min(read)] != workload.shapes[min(made)]:
        return False
    return any(op.kind == "add" and min(read) in op.inputs for op in inside.values())


def _runs(model: nn.Module, place: str, image: Tensor, made: torch.Size) -> bool:
    """Whether the module runs without a block, which some call with more than a tensor."""
    try:
        return bool(cut_module(copied(model), {place + REMOVED: ()})(image).shape == made)
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, IndexError):
        return False


def _loss(artifact: Artifact, split: Split) -> float:
    return mean_loss(artifact.model(), split, artifact.preprocessing)
