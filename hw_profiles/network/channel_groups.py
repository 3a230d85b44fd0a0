"""Groups of channels that belong together: one cannot leave without the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hw_profiles.network.workload import WEIGHTED, Workload


@dataclass(frozen=True, slots=True)
class ChannelGroups:
    """``of[tensor]`` names the group that a tensor's channels belong to; ``width[group]`` how many they are.

    Tensors share a group where channel i of one cannot leave without channel i of the other: the ends of a shortcut,
    both sides of a depthwise convolution, a gate and what it scales. ``fixed`` are the input's and the classes'
    groups.
    """

    of: Mapping[str, str]
    width: Mapping[str, int]
    fixed: frozenset[str]

    def prunable(self) -> list[str]:
        """The groups that may shrink, in order of their first tensor."""
        return [group for group in self.width if group not in self.fixed]


def channel_groups(workload: Workload) -> ChannelGroups:
    """Groups found by following the operations.

    >>> from search_spaces import preset
    >>> groups = channel_groups(preset("resnet8").workload())
    >>> groups.of["stem"] == groups.of["stages.0.0.add"]
    True
    """
    parent = {name: name for name in workload.shapes}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    fixed = {workload.input, *workload.outputs}
    for op in workload.ops:
        if op.kind in WEIGHTED and not op.depthwise:
            if op.groups > 1:  # its channels are bound to places, on both sides
                fixed |= {op.name, *op.inputs}
            continue
        for name in op.inputs:
            parent[root(op.name)] = root(name)
    of = {name: root(name) for name in workload.shapes}
    width = {group: workload.shapes[group][1] for group in dict.fromkeys(of.values())}
    return ChannelGroups(of, width, frozenset(of[name] for name in fixed))
