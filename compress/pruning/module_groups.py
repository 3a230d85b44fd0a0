"""Groups of channels and attention heads of any module, from the dependency graph of torch-pruning."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.networks.slice_channels import HEADS, INPUTS, SliceableLayer, cut_module, is_depthwise, width_of
from hw_profiles.errors import InputError


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
    """Channels that can leave only from all these layers at once. ``width``: how many units, channels or heads, may
    leave one by one; ``attention``: the module whose heads they are.
    """

    width: int
    members: tuple[Member, ...]
    attention: str | None = None


def module_groups(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, Group]:
    """The groups that may shrink, by the name of a layer that writes them (2301.12900).

    Held whole are the channels of the output, of grouped convolutions, of anything with parameters that is no
    convolution, linear layer or batch normalisation, of weights that two layers share, and those that the module itself
    counts on, so that it does not run without one of them.

    Raises:
        InputError: the module cannot be followed.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    >>> {name: [member.key for member in group.members] for name, group in module_groups(net, (3, 8, 8)).items()}
    {'0': ['0', '1', '3:inputs']}
    """
    layers = dict(model.named_modules())
    found = dict(_channel_groups(model, layers, input_shape))
    heads = dict(_head_groups(layers))
    bound = {member.layer for group in heads.values() for member in group.members if not member.inputs}
    found = {name: group for name, group in found.items() if not bound & {member.layer for member in group.members}}
    every = {**found, **heads}
    with torch.device("meta"), torch.inference_mode():
        skeleton, image = copy.deepcopy(model).to("meta").eval(), torch.zeros(1, *input_shape)
        produced = skeleton(image).shape
        if _runs(skeleton, every, image, produced):
            return every
        return {name: group for name, group in every.items() if _runs(skeleton, {name: group}, image, produced)}


def kept_channels(groups: Mapping[str, Group], model: nn.Module, chosen: Mapping[str, Tensor]) -> dict[str, list[int]]:
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


def _channel_groups(
    model: nn.Module, layers: Mapping[str, nn.Module], input_shape: tuple[int, int, int]
) -> Iterator[tuple[str, Group]]:
    import torch_pruning

    shared = _with_shared_weights(model)
    names = {layer: name for name, layer in layers.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bare parameters are held whole below
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(model, torch.zeros(1, *input_shape))
        except Exception as error:  # whatever a module raises when it is run
            reason = " ".join(str(error).split())[:200]
            name = type(model).__name__
            raise InputError(f"{name}: cannot be followed with an input of {input_shape} ({reason})") from None
        groups = list(graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]))
    for group in groups:
        parts: dict[tuple[str, bool], set[tuple[int, int]]] = {}
        whole = False
        for item in [group[k] for k in range(len(group))]:
            layer, inputs = item.dep.target.module, not graph.is_out_channel_pruning_fn(item.dep.handler)
            if item.dep.target.type == torch_pruning.ops.OPTYPE.PARAMETER:
                whole = True
            elif layer in names:
                whole |= layer in shared or not _can_be_cut(layer)
                parts.setdefault((names[layer], inputs), set()).update(zip(item.idxs, item.root_idxs, strict=True))
        members = [_member(layer, inputs, pairs) for (layer, inputs), pairs in parts.items()]
        entangled = any(len(set(member.places)) < len(member.places) for member in members)
        if any(member.inputs for member in members) and not whole and not entangled:
            yield members[0].layer, Group(1 + max(max(member.units) for member in members), tuple(members))


def _member(layer: str, inputs: bool, pairs: set[tuple[int, int]]) -> Member:
    places, units = zip(*sorted(pairs), strict=True)
    return Member(layer, inputs, places, units)


def _can_be_cut(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
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


def _runs(skeleton: nn.Module, groups: Mapping[str, Group], image: Tensor, produced: torch.Size) -> bool:
    """Whether the module runs without one unit of each group, and its output keeps its shape."""
    one_less = {name: torch.arange(1, group.width, device="cpu") for name, group in groups.items()}
    try:
        kept = kept_channels(groups, skeleton, one_less)
        return bool(cut_module(copy.deepcopy(skeleton), kept)(image).shape == produced)
    except (RuntimeError, ValueError, AssertionError, AttributeError, IndexError):
        return False
