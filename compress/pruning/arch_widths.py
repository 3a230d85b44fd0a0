"""An Arch as pruning reads it: its groups of channels, and the Arch at other widths of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from blocks.custom import CUSTOM_BLOCKS
from blocks.spec import BlockSpec
from compress.pruning.channel_groups import Group, Kept, Member, in_order
from hw_profiles.network.channel_groups import ChannelGroups, channel_groups
from hw_profiles.network.workload import WEIGHTED, Shape
from search_spaces.arch import Arch

_PLACE = re.compile(r"stages\.(\d+)\.(\d+)\.(.*)")


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
    less = {group: groups.width[group] - 1 for group in touched - groups.fixed if groups.width[group] > 1}
    width = {**groups.width, **less}
    expected: dict[str, Shape] = {}
    for op in arch.workload().ops:
        if op.kind in WEIGHTED:
            columns = op.weight_shape[1] if op.groups > 1 else width[groups.of[op.inputs[0]]]
            expected[op.weight] = (width[groups.of[op.name]], columns, *op.weight_shape[2:])
            expected |= {op.bias_name: (width[groups.of[op.name]],)} if op.bias else {}
    try:
        return with_widths(arch, block_groups(arch, groups), width).workload().weights() == expected
    except ValueError:
        return False


def arch_groups(arch: Arch, model: nn.Module) -> dict[str, tuple[str, Group]]:
    """The groups that can shrink with the layers of the Arch's module that their channels go through, by their names in
    :func:`prunable_groups`; each with the name that :func:`compress.pruning.module_groups.find_groups` gives it.

    >>> from search_spaces import build_model, preset
    >>> arch = preset("resnet8")
    >>> {name: group.width for name, group in arch_groups(arch, build_model(arch)).values()}["stages.0.0.conv1.conv"]
    16
    """
    workload, found, layers = arch.workload(), prunable_groups(arch), dict(model.named_modules())
    members: dict[str, list[Member]] = {group: [] for group in found.prunable()}

    def add(group: str, layer: str, inputs: bool) -> None:
        if group in members:
            numbers = tuple(range(found.width[group]))
            members[group].append(Member(layer, inputs, numbers, numbers))

    for op in workload.ops:
        if op.kind in WEIGHTED:
            layer = f"{op.name}.conv" if f"{op.name}.conv" in layers else op.name
            add(found.of[op.name], layer, False)
            if op.normalized:
                add(found.of[op.name], f"{op.name}.norm", False)
            if not op.depthwise:
                add(found.of[op.inputs[0]], layer, True)
    ordered = {group: in_order(each, model) for group, each in members.items()}
    return {
        group: (next(member.layer for member in each if not member.inputs), Group(found.width[group], each))
        for group, each in ordered.items()
    }


@dataclass(frozen=True, slots=True)
class BlockGroups:
    """The groups of a block's input, output, inner channels and squeezed channels; None where it has no such."""

    read: str
    written: str
    inner: str | None
    squeezed: str | None


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
    """The Arch whose groups have these widths, or the one that they have; ``places`` are its :func:`block_groups`."""
    specs: dict[str, BlockSpec] = {}
    for name, spec in arch.blocks():
        groups = places[name]
        specs[name] = replace(
            spec,
            in_channels=width.get(groups.read, spec.in_channels),
            out_channels=width.get(groups.written, spec.out_channels),
            mid_channels=width.get(groups.inner or "", spec.mid_channels),
            se_channels=width.get(groups.squeezed or "", spec.se_channels),
        )
    return replace(
        arch,
        stem=specs["stem"],
        stages=tuple(tuple(specs[f"stages.{i}.{j}"] for j in range(len(stage))) for i, stage in enumerate(arch.stages)),
        head=specs.get("head"),
    )


def pruned_arch(arch: Arch, groups: ChannelGroups, kept: Kept) -> Arch:
    """The Arch with the widths of the channels that stay."""
    return with_widths(arch, block_groups(arch, groups), {group: len(channels) for group, channels in kept.items()})


def arch_blocks(arch: Arch) -> list[str]:
    """The places of the blocks with an identity shortcut, in a stage that has another block.

    >>> from search_spaces import preset
    >>> arch_blocks(preset("mobilenetv2_100"))[:2]
    ['stages.1.1', 'stages.2.1']
    """
    return [
        f"stages.{i}.{j}"
        for i, stage in enumerate(arch.stages)
        for j, spec in enumerate(stage)
        if len(stage) > 1 and spec.shortcut == "identity"
    ]


def without_arch_block(arch: Arch, weights: Mapping[str, Tensor], place: str) -> tuple[Arch, dict[str, Tensor]]:
    """The Arch and its weights with one block less; the later blocks of its stage move up by one place."""
    i, j = map(int, place.split(".")[1:])
    stage = arch.stages[i]
    stages = (*arch.stages[:i], (*stage[:j], *stage[j + 1 :]), *arch.stages[i + 1 :])
    return replace(arch, stages=stages), _moved(weights, i, j)


def _moved(weights: Mapping[str, Tensor], stage: int, gone: int) -> dict[str, Tensor]:
    moved = {}
    for key, value in weights.items():
        match = _PLACE.fullmatch(key)
        if match is None or int(match[1]) != stage or int(match[2]) < gone:
            moved[key] = value
        elif int(match[2]) > gone:
            moved[f"stages.{stage}.{int(match[2]) - 1}.{match[3]}"] = value
    return moved
