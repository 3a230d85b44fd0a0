"""Describes any network for pruning, and builds the same kind of network with fewer channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from torch import nn

from compress.networks.artifact import Artifact
from compress.networks.module_copy import copied
from compress.networks.network_source import Source
from compress.networks.slice_channels import REMOVED, cut_module, of_original
from compress.pruning.arch_widths import (
    arch_blocks,
    arch_groups,
    block_groups,
    prunable_groups,
    with_widths,
    without_arch_block,
)
from compress.pruning.channel_groups import Groups, Kept, kept_channels, narrowed
from compress.pruning.module_blocks import module_blocks
from compress.pruning.module_groups import find_groups
from compress.pruning.module_widths import ModuleWidths
from hw_profiles.errors import InputError
from hw_profiles.network.workload import InputShape, Workload
from search_spaces.arch import Arch
from search_spaces.model import build_model

_REASONS_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PrunableNetwork:
    """A module with its groups of channels. ``held``: the layers that keep all output channels whatever the goal, each
    with the reason. ``at`` gives what is profiled at other widths of the groups. ``kept`` says what
    :func:`compress.networks.slice_channels.cut_module` must leave of the original's layers to make the same of it.
    ``rebuild`` makes a module of these widths anew with the weights of the one that was cut.
    """

    model: nn.Module
    groups: Groups
    at: Callable[[Mapping[str, int]], Arch | Workload]
    held: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, Sequence[int]] = field(default_factory=dict)
    rebuild: Callable[[Mapping[str, int], nn.Module], nn.Module] = lambda width, cut: cut

    @property
    def width(self) -> dict[str, int]:
        """How many units each group has."""
        return {name: group.width for name, group in self.groups.items()}

    def multiples(self, wanted: int) -> dict[str, int]:
        """For each group how many units leave at once, so that layers keep multiples of so many channels; heads leave
        one by one, and pieces of a split tensor several channels at once."""
        return {
            name: 1 if group.attention else max(1, wanted // group.channels_each(name))
            for name, group in self.groups.items()
        }

    def without(self, chosen: Kept) -> PrunableNetwork:
        """A smaller copy in which only the ``chosen`` units of each group are left; itself where all of them are."""
        kept = kept_channels(self.groups, self.model, chosen)
        if not kept:
            return self
        width = {name: len(units) for name, units in chosen.items()}
        return replace(
            self,
            model=self.rebuild(width, cut_module(copied(self.model), kept)),
            groups=narrowed(self.groups, chosen, kept),
            kept={**self.kept, **of_original(self.kept, kept)},
        )


def prunable_network(artifact: Artifact) -> PrunableNetwork:
    """The network of an artifact: an Arch says itself what belongs together, of any other module it is found.

    Raises:
        InputError: an ONNX file; a module that cannot be followed; no channels that can be removed, with the reasons.
    """
    model = artifact.model()
    return artifact.network.by_description(
        lambda arch: _arch_network(arch, model), lambda: module_network(model, artifact.network.stated_shape)
    )


def _arch_network(arch: Arch, model: nn.Module) -> PrunableNetwork:
    groups, places = arch_groups(arch, model), block_groups(arch, prunable_groups(arch))

    def at(width: Mapping[str, int]) -> Arch:
        return with_widths(arch, places, {ours: width[name] for ours, (name, _) in groups.items()})

    def rebuild(width: Mapping[str, int], cut: nn.Module) -> nn.Module:
        made = build_model(at(width))
        made.load_state_dict(cut.state_dict())
        return made.eval()

    return PrunableNetwork(model=model, groups=dict(groups.values()), at=at, rebuild=rebuild)


def module_network(model: nn.Module, input_shape: InputShape) -> PrunableNetwork:
    """Any module, with what is found of it by :func:`compress.pruning.module_groups.find_groups`; see
    :func:`prunable_network`."""
    found = find_groups(model, input_shape)
    if not found.groups:
        raise InputError(f"{type(model).__name__}: has no prunable channels{_listed(found.held)}")
    at = ModuleWidths(model, found.groups, input_shape)
    return PrunableNetwork(model=model, groups=found.groups, at=at, held=found.held)


def pruned_artifact(artifact: Artifact, network: PrunableNetwork) -> Artifact:
    """The artifact with what is left of its network: an Arch of smaller widths, a model of timm with the channels that
    it keeps, or the module."""
    source = artifact.network.by_description(
        lambda arch: cast("Source", network.at(network.width)),
        lambda: artifact.network.cut(network.model, network.kept),
    )
    return replace(artifact, source=source).with_model(network.model)


def removable_blocks(artifact: Artifact) -> list[str]:
    """Places of the blocks whose input can take the place of their output, see
    :func:`compress.pruning.arch_widths.arch_blocks` and :func:`compress.pruning.module_blocks.module_blocks`.

    >>> from compress.networks.as_artifact import as_artifact
    >>> from search_spaces import preset
    >>> removable_blocks(as_artifact(preset("mobilenetv2_100", num_classes=2), None))[:2]
    ['stages.1.1', 'stages.2.1']
    """
    network = artifact.network
    return network.by_description(
        arch_blocks, lambda: module_blocks(artifact.model(), network.workload(), network.stated_shape)
    )


def without(artifact: Artifact, place: str) -> Artifact:
    """The artifact without one of these blocks; in a module that is no Arch an identity takes its place."""
    gone: dict[str, Sequence[int]] = {place + REMOVED: ()}

    def of_blocks(arch: Arch) -> Artifact:
        smaller, weights = without_arch_block(arch, artifact.weights, place)
        return replace(artifact, source=smaller, weights=weights)

    def of_any() -> Artifact:
        model = cut_module(artifact.model(), gone)
        return replace(artifact, source=artifact.network.cut(model, gone)).with_model(model)

    return artifact.network.by_description(of_blocks, of_any)


def _listed(held: Mapping[str, str]) -> str:
    """The layers that stay whole, each with the reason; the first of each reason where they are many."""
    first = {reason: name for name, reason in reversed(list(held.items()))}
    shown = [f"{name}: {reason}" for reason, name in list(first.items())[::-1][:_REASONS_SHOWN]]
    more = len(held) - len(shown)
    return "".join(f"; {each}" for each in shown) + (f"; and {more} more" if more > 0 else "")
