"""Plans the offsets of a program's tensors in its arena."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from compress.c99.layers import (
    AveragePool,
    Binary,
    ChannelTables,
    Convolution,
    Lines,
    MaxPool,
    Normalize,
    ProgramLayer,
    Softmax,
    SoftmaxOf,
    Table,
    Tensor,
    Window,
)  # fmt: skip
from hw_profiles.memory.arena import smallest_arena
from hw_profiles.memory.inplace import CHANNELS_AT_ONCE, line_buffer_rows
from hw_profiles.memory.lifetimes import Storages
from hw_profiles.memory.planner import ALIGNMENT
from hw_profiles.network.workload import Op


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """Layers in the order in which they run, with their places; and those of the network's ends."""

    layers: tuple[ProgramLayer, ...]
    input_offset: int
    output_offset: int
    arena_bytes: int


def placed(layers: Sequence[ProgramLayer], source: Tensor, output: Tensor) -> Placed:
    """Order, offsets, and what is written over, for the smallest arena that is found; see
    :func:`hw_profiles.memory.planner.plan`, which does the same for a workload.
    """
    of = {source.name: 0}
    for layer in layers:
        of[layer.output.name] = len(of)
    sizes = [source.size, *(layer.output.size for layer in layers)]
    problem = Storages(
        of=of,
        sizes=tuple(_aligned(size) for size in sizes),
        sources=(0,),
        results=(of[output.name],),
        reads=tuple(tuple(dict.fromkeys(of[t.name] for t in layer.inputs)) for layer in layers),
        writes=tuple(of[layer.output.name] for layer in layers),
        overwritable=tuple(tuple(of[t.name] for t in _overwritable(layer)) for layer in layers),
        scratch=tuple(_aligned(_scratch(layer)) for layer in layers),
        after=tuple(tuple({of[t.name] - 1 for t in layer.inputs if of[t.name]}) for layer in layers),
    )
    arena = smallest_arena(problem)
    found = []
    for t, k in enumerate(arena.lifetimes.order):
        layer = layers[k]
        over, ring = arena.lifetimes.overwrites[t], arena.scratch[t]
        rows = _ring_rows(layer) if over is not None and ring is not None and _scratch(layer) else 0
        found.append(
            replace(
                layer,
                offsets=tuple(arena.offsets[of[each.name]] for each in layer.inputs),
                offset=arena.offsets[of[layer.output.name]],
                ring_rows=rows,
                ring_offset=ring or 0,
            )
        )
    return Placed(
        layers=tuple(found),
        input_offset=arena.offsets[0],
        output_offset=arena.offsets[of[output.name]],
        arena_bytes=arena.size,
    )


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _overwritable(layer: ProgramLayer) -> tuple[Tensor, ...]:
    """The inputs that a layer may write over, the preferred one first."""
    step = layer.steps[0]
    if isinstance(step, Table | ChannelTables | Lines | Softmax | SoftmaxOf | Normalize):
        return layer.inputs
    if isinstance(step, Binary):
        straight = _straight(step.sizes)
        return tuple(t for t, steps in zip(layer.inputs, step.steps, strict=True) if steps == straight)
    window = _window(layer)
    if window is None or not _shrinks(layer) or _scratch(layer) >= layer.output.size:
        return ()
    return layer.inputs


def _straight(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(sizes[i + 1 :]) for i in range(len(sizes)))


def _window(layer: ProgramLayer) -> Window | None:
    """The window of a layer that computes each channel alone."""
    step = layer.steps[0]
    alone = isinstance(step, AveragePool | MaxPool) or (isinstance(step, Convolution) and step.depthwise)
    return step.window if alone and isinstance(step, AveragePool | MaxPool | Convolution) else None


def _shrinks(layer: ProgramLayer) -> bool:
    read, written = layer.inputs[0].shape, layer.output.shape
    return written[0] <= read[0] and written[1] <= read[1] and written[2] == read[2]


def _ring_rows(layer: ProgramLayer) -> int:
    window = _window(layer)
    assert window is not None
    op = Op(layer.name, "conv", (), stride=window.stride, padding=window.padding)
    sides = ((1, t.shape[2], *t.shape[:2]) for t in (layer.inputs[0], layer.output))
    return line_buffer_rows(op, *sides)


def _scratch(layer: ProgramLayer) -> int:
    if _window(layer) is None:
        return 0
    _, columns, channels = layer.inputs[0].shape
    return _ring_rows(layer) * columns * min(channels, CHANNELS_AT_ONCE)
