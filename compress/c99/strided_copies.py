"""Strided copies that move numbers as an index array says: transposed, cut, repeated, padded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
OUTSIDE = -1
"""What stands in an index array where a number is filled in."""
MOST_AXES = 5
_MOST_RUNS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Nested loops, the outermost first: how often each runs, and by how many numbers it goes on in what is read and
    in what is written; ``read_from`` and ``write_to`` are the first numbers."""

    sizes: tuple[int, ...]
    read_steps: tuple[int, ...]
    write_steps: tuple[int, ...]
    read_from: int = 0
    write_to: int = 0


@dataclass(frozen=True, slots=True)
class _Run:
    """Loops along one axis of what is written: (size, step in what is read, step in what is written)."""

    start: int
    first: int
    loops: tuple[tuple[int, int, int], ...]


def strided_boxes(index: Index) -> tuple[Box, ...] | None:
    """Copies that write ``source[index]``, row by row; None where no few of them do. Nothing is written where the index
    is :data:`OUTSIDE`.

    >>> turned = np.arange(6).reshape(2, 3).T
    >>> strided_boxes(turned)
    (Box(sizes=(3, 2), read_steps=(1, 3), write_steps=(2, 1), read_from=0, write_to=0),)
    >>> strided_boxes(np.array([0, 0, 1, 1, 2, 2]))
    (Box(sizes=(3, 2), read_steps=(1, 0), write_steps=(2, 1), read_from=0, write_to=0),)
    >>> strided_boxes(np.array([OUTSIDE, 4, 5]))
    (Box(sizes=(2,), read_steps=(1,), write_steps=(1,), read_from=4, write_to=1),)
    """
    inside = _inside(index >= 0)
    if inside is None:
        return None
    steps = [math.prod(index.shape[axis + 1 :]) for axis in range(index.ndim)]
    to = sum(part.start * step for part, step in zip(inside, steps, strict=True))
    steps = [step * part.step for part, step in zip(inside, steps, strict=True)]
    cut = index[inside]
    first = int(cut.reshape(-1)[0])
    vectors = [_along(cut, axis) for axis in range(cut.ndim)]
    if not np.array_equal(sum((v - first for v in np.ix_(*vectors)), start=np.int64(first)), cut):
        return None
    axes = [_runs(vector, step) for vector, step in zip(vectors, steps, strict=True)]
    if math.prod(map(len, axes)) > _MOST_RUNS or not all(axes):
        return None
    found = [_box(runs, first, to, steps) for runs in product(*axes)]
    return tuple(found) if all(len(box.sizes) <= MOST_AXES for box in found) else None


def broadcast_steps(first: Index, second: Index) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None:
    """Loops that write numbers one after the other, and the steps of two operands that lie as the flat index arrays
    say; None where there are no few.

    >>> broadcast_steps(np.arange(6), np.array([0, 1, 0, 1, 0, 1]))
    ((3, 2), (2, 1), (0, 1))
    """
    parts = [_split(index - index[0]) for index in (first, second)]
    if parts[0] is None or parts[1] is None or first[0] or second[0]:
        return None
    ends = sorted({*_ends(parts[0]), *_ends(parts[1])})
    if any(b % a for a, b in pairwise(ends)):
        return None
    loops = []
    for inner, outer in pairwise(ends):
        loops.append((outer // inner, int(first[inner]), int(second[inner])))
    joined = _joined(list(reversed(loops)) or [(1, 0, 0)])
    if not {*joined[-1][1:]} <= {0, 1}:  # the innermost loop goes on to neighbors
        joined.append((1, 0, 0))
    sizes, a, b = zip(*joined, strict=True)
    return (sizes, a, b) if len(sizes) <= MOST_AXES else None


def _ends(parts: Sequence[tuple[int, int]]) -> list[int]:
    """Numbers within each loop, from the innermost on, and of all."""
    found = [1]
    for size, _ in reversed(parts):
        found.append(found[-1] * size)
    return found


def _inside(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """All that is copied, every so many numbers of each axis; None where that is not so."""
    if mask.all():
        return tuple(slice(0, size, 1) for size in mask.shape)
    parts = []
    for axis in range(mask.ndim):
        held = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not len(held):
            return None
        step = int(held[1] - held[0]) if len(held) > 1 else 1
        parts.append(slice(int(held[0]), int(held[-1]) + 1, step))
    box = tuple(parts)
    return box if mask[box].all() and mask.sum() == mask[box].size else None


def _along(index: Index, axis: int) -> Index:
    vector: Index = index[tuple(slice(None) if a == axis else 0 for a in range(index.ndim))]
    return vector


def _runs(vector: Index, step: int) -> tuple[_Run, ...]:
    """One run with loops in loops, or some straight ones."""
    loops = _split(vector - vector[0])
    if loops is not None:
        return (_Run(0, 0, _written(loops, step)),)
    found, start = [], 0
    while start < len(vector):
        end = start + 2
        while end < len(vector) and vector[end] - vector[end - 1] == vector[start + 1] - vector[start]:
            end += 1
        end = min(end, len(vector))
        each = int(vector[start + 1] - vector[start]) if end - start > 1 else 0
        found.append(_Run(start, int(vector[start] - vector[0]), ((end - start, each, step),)))
        start = end
    return tuple(found)


def _written(loops: Sequence[tuple[int, int]], step: int) -> tuple[tuple[int, int, int], ...]:
    found = []
    for size, read in reversed(loops):
        found.append((size, read, step))
        step *= size
    return tuple(reversed(found))


def _split(vector: Index) -> list[tuple[int, int]] | None:
    """Loops (size, step), the outermost first, that give the vector from 0 on."""
    count = len(vector)
    if count == 1:
        return []
    step = int(vector[1])
    straight = vector == np.arange(count) * step
    if straight.all():
        return [(count, step)]
    longest = int(np.argmin(straight))
    for size in range(longest, 1, -1):
        if count % size:
            continue
        rows = vector.reshape(-1, size)
        if np.array_equal(rows - rows[:, :1], np.broadcast_to(rows[:1], rows.shape)):
            outer = _split(rows[:, 0])
            if outer is not None:
                return [*outer, (size, step)]
    return None


def _box(runs: Sequence[_Run], first: int, to: int, steps: Sequence[int]) -> Box:
    loops = _joined([loop for run in runs for loop in run.loops if loop[0] > 1] or [(1, 0, 0)])
    sizes, reads, writes = zip(*loops, strict=True)
    return Box(
        sizes=sizes,
        read_steps=reads,
        write_steps=writes,
        read_from=first + sum(run.first for run in runs),
        write_to=to + sum(run.start * step for run, step in zip(runs, steps, strict=True)),
    )


def _joined(loops: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Neighboring loops as one where the outer goes on where the inner ends."""
    found: list[tuple[int, int, int]] = []
    for size, a, b in loops:
        if found and found[-1][1] == size * a and found[-1][2] == size * b:
            found[-1] = (found[-1][0] * size, a, b)
        else:
            found.append((size, a, b))
    return found
