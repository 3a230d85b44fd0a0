"""Which channels of a module's layers can leave only together, followed along torch-pruning's dependency graph."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from compress.networks.slice_channels import FilterLayer, width_of
from hw_profiles.errors import InputError, short_reason
from hw_profiles.network.workload import InputShape
from hw_profiles.torch_io.trace import example_of

Key = tuple[int, int]  # a channel: the number of the layer that writes it, and its place there


@dataclass(frozen=True, slots=True)
class Place:
    """A channel that a layer or bare parameter writes, or reads where ``inputs``; it leaves together with ``unit``."""

    layer: nn.Module | nn.Parameter
    inputs: bool
    channel: int
    unit: Key


@dataclass(frozen=True, slots=True)
class Channels:
    """The places of all channels that ``layers`` write, in the order of their numbers; places of one unit leave
    together. ``lost``: units that go through a view in a way that nothing says.
    """

    places: list[Place]
    layers: list[FilterLayer]
    lost: set[Key]


def channel_places(model: nn.Module, input_shape: InputShape) -> Channels:
    """The places of all channels that convolutions and linear layers write.

    The graph (2301.12900) says which channels follow from one that leaves. Here each place is followed once and two
    channels that meet there become one unit, so the time grows with the number of places, however often a tensor is
    split, joined and added. Where a tensor is split into equal pieces, channels at the same place of each piece leave
    together: the pieces stay equal.

    Raises:
        InputError: the module cannot be followed.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 1))
    >>> [(place.inputs, place.channel) for place in channel_places(net, (1, 4, 4)).places if place.unit == (0, 1)]
    [(False, 1), (True, 1)]
    """
    with warnings.catch_warnings(), _all_trainable(model):
        warnings.simplefilter("ignore")  # bare parameters are held whole
        try:
            graph = _graph(model, input_shape)
        except Exception as error:  # whatever a module raises when it is run
            reason = _UNCOUNTED if isinstance(error, ZeroDivisionError) else short_reason(error)
            name = type(model).__name__
            raise InputError(f"{name}: cannot be followed with an input of {input_shape} ({reason})") from None
        return _Couples(graph).channels()


# torch-pruning 1.6 divides by the channels that it finds behind a view, of which there may be none.
_UNCOUNTED = "one of its views divides channels in a way that cannot be followed; sparsify or quantize it instead"


def _graph(model: nn.Module, input_shape: InputShape) -> Any:
    import torch_pruning

    return torch_pruning.DependencyGraph().build_dependency(model, tuple(example_of(model, input_shape).values()))


@contextmanager
def _all_trainable(model: nn.Module) -> Iterator[None]:
    """The graph is followed by what autograd writes down, which leaves frozen parameters out."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


class _Couples:
    def __init__(self, graph: Any) -> None:
        from torch_pruning.pruner import function

        self.graph = graph
        self.parent: dict[Key, Key] = {}
        self.found: dict[tuple[Any, Any], dict[int, Key]] = {}
        self.lost: set[Key] = set()
        self.layers = [m for m in graph.model.modules() if isinstance(m, FilterLayer) and m in graph.module2node]
        widths = [width_of(layer, inputs=inputs) for layer in self.layers for inputs in (False, True)]
        self.most = max(widths, default=0)
        for number, module in enumerate(self.layers):
            pruner = graph.get_pruner_of_module(module)
            width = None if pruner is None else pruner.get_out_channels(module)
            if width is None:
                continue
            depthwise = isinstance(module, nn.Conv2d) and module.groups == module.out_channels > 1
            handler = function.prune_depthwise_conv_out_channels if depthwise else pruner.prune_out_channels
            self._follow(graph.module2node[module], handler, number, width)
        self._keep_pieces_equal()

    def channels(self) -> Channels:
        """Places of layers and parameters; operations between them are left out."""
        found, own = list[Place](), {*self.graph.model.modules(), *self.graph.model.parameters()}
        for (node, handler), channels in self.found.items():
            if node.module not in own:
                continue
            inputs = not self.graph.is_out_channel_pruning_fn(handler)
            found += [Place(node.module, inputs, channel, self._root(key)) for channel, key in channels.items()]
        return Channels(found, self.layers, {self._root(key) for key in self.lost})

    def _follow(self, node: Any, handler: Any, number: int, width: int) -> None:
        from torch_pruning._helpers import _HybridIndex

        known = self.found.get((node, handler), {})
        start = [(number, i) for i in range(width) if i not in known]
        self.parent.update((key, key) for key in start)
        waiting = [(node, handler, [_HybridIndex(idx=key[1], root_idx=key) for key in start])]
        while waiting:
            node, handler, indices = waiting.pop()
            channels, fresh = self.found.setdefault((node, handler), {}), []
            for index in indices:
                if not isinstance(index.root_idx, tuple):  # grouped queries, of which the graph knows no more
                    self.lost.update(start)
                elif not 0 <= index.idx < self.most:  # a view that is taken for a flatten, again and again
                    self.lost.add(index.root_idx)
                elif index.idx in channels:
                    self._join(channels[index.idx], index.root_idx)
                else:
                    channels[index.idx] = index.root_idx
                    fresh.append(index)
            if not fresh:
                continue
            for edge in node.dependencies:
                if edge.is_triggered_by(handler) and (mapped := _mapped(edge, fresh)):
                    waiting.append((edge.target, edge.handler, mapped))

    def _keep_pieces_equal(self) -> None:
        from torch_pruning.dependency.index_mapping import _SplitIndexMapping

        for (node, _), channels in self.found.items():
            offsets = getattr(node.module, "offsets", None)
            edges = [mapping for edge in node.dependencies for mapping in edge.index_mapping]
            if not offsets or not any(isinstance(mapping, _SplitIndexMapping) for mapping in edges):
                continue
            sizes = {after - before for before, after in pairwise(offsets)}
            if len(sizes) == 1:
                size = sizes.pop()
                for channel, key in channels.items():
                    if channel % size in channels:
                        self._join(channels[channel % size], key)

    def _root(self, key: Key) -> Key:
        path = []
        while self.parent[key] != key:
            path.append(key)
            key = self.parent[key]
        for each in path:
            self.parent[each] = key
        return key

    def _join(self, one: Key, other: Key) -> None:
        first, second = sorted((self._root(one), self._root(other)))
        self.parent[second] = first


def _mapped(edge: Any, indices: list[Any]) -> list[Any]:
    for mapping in edge.index_mapping:
        if mapping is not None:
            indices = mapping(indices)
    return indices
