"""Groups of channels and attention heads that are removed together: the description of a network that pruning reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from compress.networks.slice_channels import HEADS, INPUTS, width_of

Kept = Mapping[str, Tensor]  # group -> indices of the units that stay, ascending


@dataclass(frozen=True, slots=True)
class Member:
    """A layer that a group's channels go through: its channel ``places[i]`` is part of the group's ``units[i]``."""

    layer: str
    inputs: bool
    places: tuple[int, ...]
    units: tuple[int, ...]

    @property
    def key(self) -> str:
        """Its name for :func:`compress.networks.slice_channels.cut_module`."""
        return self.layer + INPUTS * self.inputs


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that can be removed only from all these layers at once. ``width``: how many units, channels or heads,
    can be removed one by one; ``attention``: the module whose heads they are.
    """

    width: int
    members: tuple[Member, ...]
    attention: str | None = None

    def channels_each(self, layer: str) -> int:
        """How many channels that a layer writes are removed with one unit."""
        written = [len(member.places) for member in self.members if member.layer == layer and not member.inputs]
        return max(1, sum(written) // self.width)


Groups = Mapping[str, Group]  # by the name of the first layer that writes the channels


def in_order(members: Iterable[Member], model: nn.Module) -> tuple[Member, ...]:
    """The members in the order of their layers in the module, so that sums over them are the same to the last bit."""
    order = {name: number for number, (name, _) in enumerate(model.named_modules())}
    return tuple(sorted(members, key=lambda member: (order[member.layer], member.inputs)))


def kept_channels(groups: Groups, model: nn.Module, chosen: Kept) -> dict[str, list[int]]:
    """What stays of each layer where the ``chosen`` units of each group do, for
    :func:`compress.networks.slice_channels.cut_module`."""
    layers = dict(model.named_modules())
    gone: dict[str, set[int]] = {}
    kept: dict[str, list[int]] = {}
    for name, group in groups.items():
        stays = set(chosen[name].tolist())
        if len(stays) == group.width:
            continue
        if group.attention is not None:
            kept[group.attention + HEADS] = sorted(stays)
        for member in group.members:
            leaving = {place for place, unit in zip(member.places, member.units, strict=True) if unit not in stays}
            gone.setdefault(member.key, set()).update(leaving)
    for key, places in gone.items():
        width = width_of(layers[key.removesuffix(INPUTS)], inputs=key.endswith(INPUTS))
        kept[key] = sorted(set(range(width)) - places)
    return kept


def shuffled_channels(groups: Groups, model: nn.Module, seed: int = 0) -> dict[str, list[int]]:
    """An order of the channels of each layer in which the units of each group have changed places at random with others
    that go through as many channels of each layer: for :func:`compress.networks.slice_channels.reorder_module`."""
    layers, generator = dict(model.named_modules()), np.random.default_rng(seed)
    order: dict[str, list[int]] = {}
    for group in groups.values():
        places = [_places_of_units(member, group.width) for member in group.members]
        alike: dict[tuple[int, ...], list[int]] = {}
        for unit in range(group.width):
            alike.setdefault(tuple(len(each[unit]) for each in places), []).append(unit)
        for units in alike.values():
            for unit, other in zip(units, generator.permutation(units).tolist(), strict=True):
                for member, each in zip(group.members, places, strict=True):
                    width = width_of(layers[member.layer], inputs=member.inputs)
                    channels = order.setdefault(member.key, list(range(width)))
                    for place, source in zip(each[unit], each[other], strict=True):
                        channels[place] = source
    return order


def _places_of_units(member: Member, width: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(width)]
    for place, unit in zip(member.places, member.units, strict=True):
        found[unit].append(place)
    return found


def narrowed(groups: Groups, chosen: Kept, kept: Mapping[str, list[int]]) -> dict[str, Group]:
    """The groups of the network that :func:`kept_channels` leaves, their channels and units numbered anew.

    >>> import torch
    >>> groups = {"a": Group(3, (Member("a", False, (0, 1, 2), (0, 1, 2)),))}
    >>> narrowed(groups, {"a": torch.tensor([0, 2])}, {"a": [0, 2]})["a"].members
    (Member(layer='a', inputs=False, places=(0, 1), units=(0, 1)),)
    """
    places = {key: {channel: number for number, channel in enumerate(channels)} for key, channels in kept.items()}
    found = {}
    for name, group in groups.items():
        units = {unit: number for number, unit in enumerate(chosen[name].tolist())}
        members = tuple(_renumbered(member, units, places.get(member.key)) for member in group.members)
        found[name] = Group(len(units), members, group.attention)
    return found


def _renumbered(member: Member, units: Mapping[int, int], places: Mapping[int, int] | None) -> Member:
    pairs = [pair for pair in zip(member.places, member.units, strict=True) if pair[1] in units]
    return Member(
        member.layer,
        member.inputs,
        tuple(place if places is None else places[place] for place, _ in pairs),
        tuple(units[unit] for _, unit in pairs),
    )
