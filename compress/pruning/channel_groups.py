"""What of an Arch can be pruned, and the smaller Arch and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from blocks.custom import CUSTOM_BLOCKS
from blocks.spec import BlockSpec
from compress.networks.weight_layers import weight_keys
from hw_profiles.network.channel_groups import ChannelGroups, channel_groups
from hw_profiles.network.workload import WEIGHTED, Workload
from search_spaces.arch import Arch

Kept = Mapping[str, Tensor]  # group -> indices of the channels that stay, ascending


def prunable_groups(arch: Arch) -> ChannelGroups:
    """The groups of an Arch; those of a user's own block are fixed where its spec cannot say a smaller one.

    >>> from search_spaces import preset
    >>> len(prunable_groups(preset("resnet8")).prunable())
    6
    """
    workload = arch.workload()
    groups = channel_groups(workload)
    for name, spec in arch.blocks():
        if spec.kind in CUSTOM_BLOCKS:
            ops = [op for op in workload.ops if op.name == name or op.name.startswith(f"{name}.")]
            touched = {groups.of[tensor] for op in ops for tensor in (op.name, *op.inputs)}
            if not _can_shrink(arch, groups, touched):
                groups = replace(groups, fixed=groups.fixed | touched)
    return groups


def _can_shrink(arch: Arch, groups: ChannelGroups, touched: set[str]) -> bool:
    """Whether the Arch with one channel less in each of these groups has the weights that pruning leaves."""
    kept = {g: torch.arange(groups.width[g] - 1) for g in touched - groups.fixed if groups.width[g] > 1}
    workload = arch.workload()
    weights = {name: torch.empty(shape) for name, shape in workload.weights().items()}
    expected = {name: tuple(w.shape) for name, w in pruned_weights(weights, workload, groups, kept).items()}
    try:
        return pruned_arch(arch, groups, kept).workload().weights() == expected
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class BlockGroups:
    """The groups of a block's input, output, inner channels and squeezed channels; None where it has no such."""

    read: str
    written: str
    inner: str | None
    squeezed: str | None

    def all(self) -> set[str]:
        """Every group whose width is a width of the block."""
        return {group for group in (self.read, self.written, self.inner, self.squeezed) if group is not None}


def block_groups(arch: Arch, groups: ChannelGroups) -> dict[str, BlockGroups]:
    """Which group gives each width of each block, by the block's place.

    >>> from search_spaces import preset
    >>> arch = preset("resnet8")
    >>> block_groups(arch, channel_groups(arch.workload()))["stages.0.0"].inner
    'stages.0.0.conv1'
    """
    workload = arch.workload()
    found = {}
    for name, spec in arch.blocks():
        ops = [op for op in workload.ops if op.name == name or op.name.startswith(f"{name}.")]
        weighted = [op.name for op in ops if op.kind in WEIGHTED]
        squeezed = next((op for op in weighted if op.endswith("se.reduce")), None)
        found[name] = BlockGroups(
            read=groups.of[ops[0].inputs[0]],
            written=groups.of[ops[-1].name],
            inner=groups.of[weighted[0]] if spec.mid_channels else None,
            squeezed=groups.of[squeezed] if squeezed else None,
        )
    return found


def with_widths(arch: Arch, places: Mapping[str, BlockGroups], width: Mapping[str, int]) -> Arch:
    """The Arch whose groups have these widths; ``places`` are its :func:`block_groups`."""
    specs: dict[str, BlockSpec] = {}
    for name, spec in arch.blocks():
        groups = places[name]
        specs[name] = replace(
            spec,
            in_channels=width[groups.read],
            out_channels=width[groups.written],
            mid_channels=width[groups.inner] if groups.inner else 0,
            se_channels=width[groups.squeezed] if groups.squeezed else 0,
        )
    return replace(
        arch,
        stem=specs["stem"],
        stages=tuple(tuple(specs[f"stages.{i}.{j}"] for j in range(len(stage))) for i, stage in enumerate(arch.stages)),
        head=specs.get("head"),
    )


def pruned_arch(arch: Arch, groups: ChannelGroups, kept: Kept) -> Arch:
    """The Arch with the widths of the channels that stay."""
    width = {group: len(kept[group]) if group in kept else count for group, count in groups.width.items()}
    return with_widths(arch, block_groups(arch, groups), width)


def pruned_weights(
    weights: Mapping[str, Tensor], workload: Workload, groups: ChannelGroups, kept: Kept
) -> dict[str, Tensor]:
    """The state dict with only the channels that stay."""
    sliced = dict(weights)
    for op in workload.ops:
        if op.kind not in WEIGHTED:
            continue
        written = kept.get(groups.of[op.name])
        read = None if op.depthwise else kept.get(groups.of[op.inputs[0]])
        for key in weight_keys(op, weights):
            value = weights[key]
            if written is not None and value.ndim:
                value = value.index_select(0, written)
            if read is not None and value.ndim > 1:
                value = value.index_select(1, read)
            sliced[key] = value.contiguous()
    return sliced
