"""Groups of channels and attention heads of any module, from the dependency graph of torch-pruning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from compress.networks.module_copy import copied
from compress.networks.network_interface import is_frozen
from compress.networks.slice_channels import FilterLayer, SliceableLayer, cut_module, is_depthwise, reorder_module
from compress.pruning.channel_dependencies import Key, Place, channel_places
from compress.pruning.channel_groups import Group, Groups, Kept, Member, in_order, kept_channels, shuffled_channels
from hw_profiles.network.workload import InputShape
from hw_profiles.torch_io.trace import example_of, run_once

_NEARLY = 1e-3  # of the largest output: sums in another order are a little different


@dataclass(frozen=True, slots=True)
class Found:
    """The groups that may shrink, by the name of a layer that writes them; ``held``: the layers of which every output
    channel stays, each with the reason.
    """

    groups: Groups
    held: Mapping[str, str]


def find_groups(model: nn.Module, input_shape: InputShape) -> Found:
    """The groups that may shrink (2301.12900), and why other layers may not.

    Held whole are the channels of the output, of grouped convolutions, of anything with parameters that is no
    convolution, linear layer, batch normalization or PReLU, of weights that two layers share, of frozen layers, and
    those that the module itself counts on, so that it does not run without one of them.

    Raises:
        InputError: the module cannot be followed.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    >>> [member.key for member in find_groups(net, (3, 8, 8)).groups["0"].members]
    ['0', '1', '3:inputs']
    >>> find_groups(nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 2, 1)), (3, 8, 8)).held["0"]
    "its channels go through '1' (GroupNorm), which cannot be cut"
    """
    layers = dict(model.named_modules())
    found, held = _channel_groups(copied(model), input_shape)  # some keep tensors of a run
    heads = {name: group for name, group in _head_groups(layers) if not _frozen_members(layers, group)}
    bound = {member.layer for group in heads.values() for member in group.members if not member.inputs}
    found = {name: group for name, group in found.items() if not bound & {member.layer for member in group.members}}
    every = {**found, **heads}
    with torch.inference_mode():
        fresh = copied(model).cpu().eval()
        produced = run_once(copied(fresh), input_shape).shape
        runs = _holding(every, lambda some: _runs(fresh, some, input_shape, produced))
        is_same = _Shuffled(fresh, input_shape)
        alike = {**_holding(runs, is_same)}
        turned = {name: _turned(group) for name, group in runs.items() if name not in alike}
        alike |= _holding({name: group for name, group in turned.items() if group != runs[name]}, is_same)
    held |= {name: _COUNTED for name in every if name not in runs} | {
        name: _ORDERED for name in runs if name not in alike
    }
    every = alike
    written = {member.layer for group in every.values() for member in group.members if not member.inputs}
    return Found(every, {name: reason for name, reason in held.items() if name not in written})


_COUNTED = "the module itself counts on the number of its channels, and does not run with fewer"
_ORDERED = (
    "what its channels go through tells them apart by their order, such as a flip or a flattened image of other axes"
)
_LOST = "its channels go through a view in a way that cannot be followed"
_OUTPUT = "no layer after it reads its channels: they are the output"


def _channel_groups(model: nn.Module, input_shape: InputShape) -> tuple[dict[str, Group], dict[str, str]]:
    """The groups, and the layers with channels that stay."""
    names: dict[object, str] = {layer: name for name, layer in model.named_modules()}
    parameters = {parameter: name for name, parameter in model.named_parameters()}
    shared = _with_shared_weights(model)
    places: dict[Key, list[Place]] = {}
    channels = channel_places(model, input_shape)
    for place in channels.places:
        places.setdefault(place.unit, []).append(place)
    units: dict[int, list[list[Place]]] = {}
    held: dict[str, str] = {}
    for key, unit in places.items():
        reason = next(filter(None, (_why_held(place.layer, names, parameters, shared) for place in unit)), "")
        if key in channels.lost:
            reason = reason or _LOST
        if not any(place.inputs for place in unit):
            reason = reason or _OUTPUT
        if reason:
            written = [place.layer for place in unit if not place.inputs and place.layer in names]
            held.update((names[each], reason) for each in written if isinstance(each, FilterLayer))
        else:
            units.setdefault(key[0], []).append(unit)
    return {names[channels.layers[number]]: _group(each, names, model) for number, each in units.items()}, held


def _why_held(
    layer: object, names: Mapping[object, str], parameters: Mapping[nn.Parameter, str], shared: set[nn.Module]
) -> str:
    """Why the channels of a layer or bare parameter must stay; empty where they need not."""
    if isinstance(layer, nn.Parameter):
        return f"its channels meet the parameter {parameters.get(layer, '')!r}, which cannot be cut"
    if layer not in names or not isinstance(layer, nn.Module):
        return ""
    if layer in shared:
        return f"{names[layer]!r} shares its weights with another layer"
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and not _can_be_cut(layer):
        return f"{names[layer]!r} is a grouped convolution, whose channels cannot be removed"
    if not _can_be_cut(layer):
        return f"its channels go through {names[layer]!r} ({type(layer).__name__}), which cannot be cut"
    return f"{names[layer]!r} is frozen (requires_grad is False)" if is_frozen(layer) else ""


def _frozen_members(layers: Mapping[str, nn.Module], group: Group) -> bool:
    return any(is_frozen(layers[member.layer]) for member in group.members)


def _group(units: Sequence[Sequence[Place]], names: Mapping[object, str], model: nn.Module) -> Group:
    parts: dict[tuple[str, bool], list[tuple[int, int]]] = {}
    for number, unit in enumerate(units):
        for place in unit:
            if place.layer in names and _has_channels(place.layer):
                parts.setdefault((names[place.layer], place.inputs), []).append((place.channel, number))
    members = (_member(layer, inputs, pairs) for (layer, inputs), pairs in parts.items())
    return Group(len(units), in_order(members, model))


def _has_channels(layer: object) -> bool:
    """A PReLU may have one slope for all channels."""
    return isinstance(layer, SliceableLayer) and not (isinstance(layer, nn.PReLU) and layer.num_parameters == 1)


def _member(layer: str, inputs: bool, pairs: list[tuple[int, int]]) -> Member:
    places, units = zip(*sorted(pairs), strict=True)
    return Member(layer, inputs, places, units)


def _can_be_cut(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return layer.groups == 1 or is_depthwise(layer)
    return isinstance(layer, SliceableLayer) or not any(True for _ in layer.parameters())


def _with_shared_weights(model: nn.Module) -> set[nn.Module]:
    """Different layers that have a parameter in common."""
    owners: dict[int, set[nn.Module]] = {}
    for module in model.modules():
        for value in module.parameters(recurse=False):
            owners.setdefault(id(value), set()).add(module)
    return {module for modules in owners.values() if len(modules) > 1 for module in modules}


def _head_groups(layers: Mapping[str, nn.Module]) -> Iterator[tuple[str, Group]]:
    """The heads of attention modules as timm writes them: one linear layer for queries, keys and values, one after."""
    for name, module in layers.items():
        heads, qkv, last = (getattr(module, part, None) for part in ("num_heads", "qkv", "proj"))
        if not isinstance(heads, int) or not isinstance(qkv, nn.Linear) or not isinstance(last, nn.Linear):
            continue
        if heads < 2 or qkv.out_features != 3 * last.in_features or last.in_features % heads:
            continue
        size = last.in_features // heads
        of_input = tuple(place // size for place in range(last.in_features))
        yield (
            name,
            Group(
                heads,
                (
                    Member(f"{name}.qkv", False, tuple(range(qkv.out_features)), of_input * 3),
                    Member(f"{name}.proj", True, tuple(range(last.in_features)), of_input),
                ),
                attention=name,
            ),
        )


def _holding(groups: Groups, holds: Callable[[Groups], bool]) -> Groups:
    """The groups for which something holds, by halves: for few it does not."""
    if not groups or holds(groups):
        return groups
    if len(groups) == 1:
        return {}
    names, half = list(groups), len(groups) // 2
    parts = ({name: groups[name] for name in some} for some in (names[:half], names[half:]))
    return {name: group for part in parts for name, group in _holding(part, holds).items()}


def _runs(fresh: nn.Module, groups: Groups, input_shape: InputShape, produced: torch.Size) -> bool:
    """Whether the module runs without the first unit of each group, and without the last: where it takes a part of the
    channels by their numbers, it may count on one of them alone."""
    units = {name: torch.arange(group.width, device="cpu") for name, group in groups.items()}
    ends = ({name: each[part] for name, each in units.items()} for part in (slice(1, None), slice(-1)))
    return all(_keeps_shape(fresh, groups, chosen, input_shape, produced) for chosen in ends)


def _keeps_shape(fresh: nn.Module, groups: Groups, chosen: Kept, input_shape: InputShape, produced: torch.Size) -> bool:
    """Whether the module runs with the chosen units alone, and its output keeps its shape."""
    try:
        kept = kept_channels(groups, fresh, chosen)
        return bool(run_once(cut_module(copied(fresh), kept), input_shape).shape == produced)
    except (RuntimeError, ValueError, AssertionError, AttributeError, IndexError):
        return False


def _turned(group: Group) -> Group:
    """The group with the other reading of a view that has several channels for each unit: one after the other in the
    graph, where the module may have all units once, then all again, as the weights of several branches are."""

    def turned(member: Member) -> Member:
        each = len(member.places) // group.width
        blocks = tuple(place // each for place in member.places) if each > 1 else ()
        return (
            replace(member, units=tuple(p % group.width for p in member.places)) if member.units == blocks else member
        )

    return replace(group, members=tuple(map(turned, group.members)))


class _Shuffled:
    """Whether a module says the same of an image where the units of groups have changed places: then what reads each
    of them was found. Nothing is said against a module that is not the same twice, or makes numbers that are not
    finite."""

    def __init__(self, fresh: nn.Module, input_shape: InputShape) -> None:
        self.fresh = fresh
        generator = torch.Generator().manual_seed(0)
        zeros = example_of(fresh, input_shape).values()
        self.example = [torch.randn(each.shape, generator=generator) for each in zeros]
        self.expected = copied(fresh)(*self.example)
        self.is_known = bool(self.expected.isfinite().all()) and bool(self._differs_by(fresh) == 0)

    def __call__(self, groups: Groups) -> bool:
        """Whether the groups may change places within themselves."""
        if not self.is_known:
            return True
        shuffled = reorder_module(copied(self.fresh), shuffled_channels(groups, self.fresh))
        return self._differs_by(shuffled) <= _NEARLY * float(self.expected.abs().max())

    def _differs_by(self, module: nn.Module) -> float:
        return float((copied(module)(*self.example) - self.expected).abs().max())
