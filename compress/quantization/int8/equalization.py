"""Cross-layer equalization: channels that share a scale are brought to one range, the function unchanged."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_profiles.network.workload import VIEWS, Op, Workload

Weights = Mapping[str, NDArray[np.float32]]
Extent = NDArray[np.float64]  # one magnitude for each channel

EQUALIZATIONS = ("none", "weights", "activations")
_PASSING = ("relu", "none")  # f(s x) = s f(x) for s > 0
_POOLS = ("global_avg_pool", "avg_pool", "max_pool")
_SWEEPS = 20
_FARTHEST = 1e3  # a channel is scaled by no more, so that one that is nearly dead does not ruin its readers


@dataclass(frozen=True, slots=True)
class Link:
    """Tensors whose channels can be divided by a factor each: ``writers`` divide by it, ``consumers`` multiply."""

    tensors: tuple[str, ...]
    writers: tuple[Op, ...]
    consumers: tuple[Op, ...]


def links(workload: Workload) -> list[Link]:
    """The tensors that lie between convolutions or linear layers, joined by what a positive factor passes through:
    ReLU, sums, pooling, and the gate of a squeeze-excite part, which is left as it is.

    A tensor that ReLU6, hard-swish, SiLU or a sigmoid reads has no link: there a factor would change the function. So
    have inputs and outputs, and what lies beside a weight that several operations read.
    Links come in the order of their writers' depth, whichever of two branches is listed first.

    >>> from search_spaces import preset
    >>> [link.writers[0].name for link in links(preset("resnet8").workload())][:2]
    ['stem', 'stages.0.0.conv1']
    """
    groups = _Groups(workload)
    found = []
    for tensors in groups.free():
        members = set(tensors)
        writers = tuple(op for op in workload.ops if _scalable(op) and op.name in members)
        consumers = tuple(op for op in workload.ops if _scalable(op) and op.inputs[0] in members)
        if writers and consumers:
            found.append(Link(tensors, writers, consumers))
    depths = _depths(workload)
    return sorted(found, key=lambda link: _extremes(depths[op.name] for op in link.writers))


def equalized(
    workload: Workload,
    weights: Weights,
    extents: Mapping[str, Extent] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Weights of the same function whose channels have more equal ranges.

    Without ``extents`` each channel's factor makes the largest weight that writes it as large as the largest one that
    reads it (cross-layer equalization, 1906.04721), swept over all links until nothing changes. ``extents``, the
    largest magnitude of each channel of every tensor that is held as integers, take the writers' place (2211.10438,
    with strength 1/2): then it is the activations, which share one scale, that become alike. Where all that reads a
    channel is depthwise and has a scale of its own there, its activations become exactly alike.
    """
    changed = {name: value.astype(np.float64) for name, value in weights.items()}
    found = links(workload)
    if extents is not None:
        for link in found:
            _rescale(link, _activation_factors(link, changed, extents), changed)
    else:
        for _ in range(_SWEEPS):
            farthest = max((_rescale(link, _weight_factors(link, changed), changed) for link in found), default=1.0)
            if farthest < 1.001:
                break
    return {name: value.astype(np.float32) for name, value in changed.items()}


def _depths(workload: Workload) -> dict[str, int]:
    """How many operations lie between the input and each tensor, on the longest way."""
    depths = dict.fromkeys(workload.inputs, 0)
    for op in workload.ops:
        depths[op.name] = 1 + max((depths[name] for name in op.inputs), default=0)
    return depths


def _extremes(numbers: Iterable[int]) -> tuple[int, int]:
    known = sorted(numbers)
    return known[0], known[-1]


def _weight_factors(link: Link, weights: Mapping[str, NDArray[np.float64]]) -> Extent:
    return _ratio(_extent(link.writers, weights, _written), _extent(link.consumers, weights, _read))


def _activation_factors(
    link: Link, weights: Mapping[str, NDArray[np.float64]], extents: Mapping[str, Extent]
) -> Extent:
    seen: Extent = np.max([extents[name] for name in link.tensors if name in extents], axis=0)
    if all(op.depthwise for op in link.consumers):
        return _ratio(seen**2, np.ones_like(seen))
    return _ratio(seen, _extent(link.consumers, weights, _read))


def _ratio(written: Extent, read: Extent) -> Extent:
    """The root of their quotient about the mean 1; 1 for a channel that nothing writes or reads."""
    alive = (written > 0) & (read > 0)
    if not alive.any():
        return np.ones_like(written)
    logs = np.zeros_like(written)
    logs[alive] = 0.5 * (np.log(written[alive]) - np.log(read[alive]))
    logs[alive] -= logs[alive].mean()
    factors: Extent = np.exp(np.clip(logs, -math.log(_FARTHEST), math.log(_FARTHEST)))
    return factors


def _rescale(link: Link, factors: Extent, weights: dict[str, NDArray[np.float64]]) -> float:
    """Apply them; how far the farthest is from 1."""
    for op in link.writers:
        weights[op.weight] = weights[op.weight] / _along(factors, 0, weights[op.weight].ndim)
        if op.bias:
            weights[op.bias_name] = weights[op.bias_name] / factors
    for op in link.consumers:
        weight = weights[op.weight]
        blocks = weight.reshape(op.groups, weight.shape[0] // op.groups, weight.shape[1], -1)
        weights[op.weight] = (blocks * factors.reshape(op.groups, 1, -1, 1)).reshape(weight.shape)
    return float(np.max(np.maximum(factors, 1 / factors)))


def _along(factors: Extent, axis: int, ndim: int) -> Extent:
    return factors.reshape([-1 if i == axis else 1 for i in range(ndim)])


def _extent(ops: tuple[Op, ...], weights: Mapping[str, NDArray[np.float64]], of: object) -> Extent:
    assert callable(of)
    extent: Extent = np.max([of(op, weights[op.weight]) for op in ops], axis=0)
    return extent


def _written(op: Op, weight: NDArray[np.float64]) -> Extent:
    """The largest weight that writes each channel."""
    extent: Extent = np.abs(weight).reshape(weight.shape[0], -1).max(axis=1)
    return extent


def _read(op: Op, weight: NDArray[np.float64]) -> Extent:
    """The largest weight that reads each channel."""
    blocks = np.abs(weight).reshape(op.groups, weight.shape[0] // op.groups, weight.shape[1], -1)
    extent: Extent = blocks.max(axis=(1, 3)).reshape(-1)
    return extent


def _scalable(op: Op) -> bool:
    return op.kind in ("conv", "linear") and op.stores_weights


class _Groups:
    """Union of tensors whose channels have one factor; those where it must be 1 are fixed."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.parent = {name: name for name in workload.shapes}
        self.fixed = {*workload.inputs, *workload.outputs}
        self.readers = Counter(op.weight for op in workload.ops if op.stores_weights)
        for op in workload.ops:
            self._add(op)

    def free(self) -> list[tuple[str, ...]]:
        members: dict[str, list[str]] = {}
        for name in self.workload.shapes:
            members.setdefault(self._root(name), []).append(name)
        closed = {self._root(name) for name in self.fixed}
        return [tuple(names) for root, names in members.items() if root not in closed]

    def _root(self, name: str) -> str:
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def _add(self, op: Op) -> None:
        shapes = self.workload.shapes
        if _scalable(op):
            if len(shapes[op.inputs[0]]) not in (2, 4) or self.readers[op.weight] > 1:
                self.fixed |= {op.name, *op.inputs}
        elif self._passes(op):
            self._join(op.name, op.inputs)
        elif op.kind == "mul" and shapes[op.inputs[1]][2:] == (1, 1) and shapes[op.inputs[0]] == shapes[op.name]:
            self._join(op.name, op.inputs[:1])
            self.fixed.add(op.inputs[1])
        else:
            self.fixed |= {op.name, *op.inputs}

    def _passes(self, op: Op) -> bool:
        shapes = self.workload.shapes
        if op.kind == "activation":
            return op.function in _PASSING
        if op.kind in VIEWS:
            return shapes[op.inputs[0]][1:2] == shapes[op.name][1:2]
        if op.kind == "add":
            return all(shapes[name] == shapes[op.name] for name in op.inputs)
        return op.kind in _POOLS

    def _join(self, name: str, others: tuple[str, ...]) -> None:
        for other in others:
            self.parent[self._root(name)] = self._root(other)
