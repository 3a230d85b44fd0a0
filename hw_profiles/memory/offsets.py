"""Offsets of buffers in an arena, so that buffers alive at the same time never overlap."""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence
from dataclasses import dataclass

TRIES = 300
"""How many sequences are tried before the lowest arena so far is taken."""
_WORK = 300_000  # pairs of blocks that are looked at in all tries together
_MANY = 400  # blocks from which on one try must do


@dataclass(frozen=True, slots=True)
class Span:
    """``size`` bytes that are needed from kernel ``first`` to kernel ``last``, both included."""

    first: int
    last: int
    size: int


Block = tuple[Span, ...]  # what starts at one offset: a tensor and those that are written over it


def place(blocks: Sequence[Block], floor: int = 0, *, tries: int = TRIES) -> tuple[int, ...]:
    """The offset of each block in the smallest arena that was found; ``floor`` is one that cannot be undercut.

    Blocks are put at the lowest free place one after the other. Which comes first decides how good that is: the largest
    do at the start, and then, time and again, those that stood out above ``floor`` come earlier.

    >>> place([(Span(0, 1, 32),), (Span(1, 2, 16),), (Span(2, 3, 32),)])
    (0, 32, 0)
    """
    if len(blocks) > _MANY:
        return _in_time_order(blocks)
    neighbors = _neighbors(blocks)
    pairs = sum(len(found) for found in neighbors)
    openings = _openings(blocks)
    tries = max(len(openings), min(tries, _WORK // (pairs + 1)))
    generator = random.Random(0)
    best, lowest = (0,) * len(blocks), sum(_size(block) for block in blocks) + 1
    sequence, offsets = openings[0], best
    for attempt in range(tries):
        if attempt < len(openings):
            sequence = openings[attempt]
        else:
            sequence = _with_the_high_earlier(blocks, sequence, offsets, floor, generator)
        offsets = _first_fit(sequence, neighbors)
        arena = top(blocks, offsets)
        if arena < lowest:
            best, lowest = offsets, arena
        if lowest <= floor:
            break
    return best


def _openings(blocks: Sequence[Block]) -> list[list[int]]:
    """The largest first; those that hold the most for the longest first; as they are needed."""
    size, first = [_size(block) for block in blocks], [block[0].first for block in blocks]
    area = [sum(s.size * (s.last - s.first + 1) for s in block) for block in blocks]
    count = range(len(blocks))
    return [
        sorted(count, key=lambda b: (-size[b], first[b])),
        sorted(count, key=lambda b: -area[b]),
        sorted(count, key=lambda b: (first[b], -size[b])),
    ]


def _with_the_high_earlier(
    blocks: Sequence[Block], sequence: Sequence[int], offsets: Sequence[int], floor: int, generator: random.Random
) -> list[int]:
    """The sequence with each block that reaches above ``floor`` at some earlier place."""
    changed = list(sequence)
    for block in sequence:
        if offsets[block] + _size(blocks[block]) > floor:
            at = changed.index(block)
            changed.insert(generator.randint(0, at), changed.pop(at))
    return changed


def top(blocks: Sequence[Block], offsets: Sequence[int]) -> int:
    """The end of the last byte in use."""
    return max((offset + _size(block) for block, offset in zip(blocks, offsets, strict=True)), default=0)


def _size(block: Block) -> int:
    return max(span.size for span in block)


def _neighbors(blocks: Sequence[Block]) -> list[list[tuple[int, int, int]]]:
    """For each block the others that exist at the same time, with the bytes that either has then."""
    found: list[list[tuple[int, int, int]]] = [[] for _ in blocks]
    for a, block in enumerate(blocks):
        for b in range(a):
            pairs = [(s.size, o.size) for s in block for o in blocks[b] if s.first <= o.last and o.first <= s.last]
            if pairs:
                own, others = max(p[0] for p in pairs), max(p[1] for p in pairs)
                found[a].append((b, own, others))
                found[b].append((a, others, own))
    return found


def _first_fit(sequence: Sequence[int], neighbors: Sequence[Sequence[tuple[int, int, int]]]) -> tuple[int, ...]:
    offsets = [-1] * len(sequence)
    for block in sequence:
        taken = sorted((offsets[b], own, other) for b, own, other in neighbors[block] if offsets[b] >= 0)
        offsets[block] = _lowest(taken)
    return tuple(offsets)


def _lowest(taken: Sequence[tuple[int, int, int]]) -> int:
    """The lowest offset at least ``own`` bytes before, or ``other`` bytes after, each block at ``start``."""
    offset = 0
    moved = True
    while moved:
        moved = False
        for start, own, other in taken:
            if start - own < offset < start + other:
                offset, moved = start + other, True
    return offset


def _in_time_order(blocks: Sequence[Block]) -> tuple[int, ...]:
    """First fit in the order of time, each block as large as it ever is."""
    offsets = [0] * len(blocks)
    used: list[tuple[int, int, int]] = []  # offset, end, last kernel
    for b in sorted(range(len(blocks)), key=lambda b: (blocks[b][0].first, -_size(blocks[b]))):
        first, size = blocks[b][0].first, _size(blocks[b])
        used = [block for block in used if block[2] >= first]
        offset = 0
        for start, end, _ in used:
            if offset + size <= start:
                break
            offset = max(offset, end)
        offsets[b] = offset
        bisect.insort(used, (offset, offset + size, max(span.last for span in blocks[b])))
    return tuple(offsets)
