"""A static arena: order of kernels, overwritten buffers and offsets, chosen together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hw_profiles.memory.lifetimes import Lifetimes, Storages, lifetimes
from hw_profiles.memory.offsets import Block, Span, place, top
from hw_profiles.memory.ordering import best_order

CHANGES = 1000
"""How many changes of a plan are tried where its blocks leave gaps."""
_WORK = 400_000  # pairs of kernels that are looked at in all changes together
_TRIES = 48
_RETURN = 0.02  # how often the search goes back to where it began
_MOVE = 0.75  # how often a change is one of order


@dataclass(frozen=True, kw_only=True, slots=True)
class Arena:
    """When each storage lives and where: ``offsets`` of the storages, ``scratch`` of each kernel in order, or None."""

    lifetimes: Lifetimes
    offsets: tuple[int, ...]
    scratch: tuple[int | None, ...]
    size: int


def smallest_arena(problem: Storages, *, changes: int = CHANGES) -> Arena:
    """The smallest arena that was found.

    First the order of the smallest peak, then offsets. The arena cannot be smaller than the peak; where blocks of odd
    sizes leave gaps, so that it is larger, other orders and other choices of what is written over are tried. Chains
    with shortcuts hardly ever need that.

    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from hw_profiles.memory.lifetimes import storages
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload().with_precision("int8")
    >>> smallest_arena(storages(w, fuse(w, "c99"), "c99")).size
    49152
    """
    order = best_order(problem)
    floor = max(lifetimes(problem, order).live)
    first = best = current = _arena(problem, order, floor)
    kept = problem
    generator = random.Random(0)
    for _ in range(min(changes, _WORK // len(order) ** 2)):
        if best.size <= floor:
            break
        if generator.random() < _RETURN:
            current, kept = first, problem
        changed, order = _changed(problem, kept, current.lifetimes.order, generator)
        if max(lifetimes(changed, order).live) >= best.size:
            continue
        found = _arena(changed, order, floor, tries=_TRIES)
        if found.size <= current.size:
            current, kept = found, changed
        if found.size < best.size:
            best = found
    return best


def _arena(problem: Storages, order: Sequence[int], floor: int, **limits: int) -> Arena:
    found = lifetimes(problem, order)
    blocks, block_of, scratch_of = _blocks(problem, found)
    offsets = place(blocks, max(floor, *found.live), **limits)
    return Arena(
        lifetimes=found,
        offsets=tuple(offsets[b] if b >= 0 else 0 for b in block_of),
        scratch=tuple(None if b is None else offsets[b] for b in scratch_of),
        size=top(blocks, offsets),
    )


def _blocks(problem: Storages, found: Lifetimes) -> tuple[list[Block], list[int], list[int | None]]:
    """Blocks, the block of each storage (-1: never used) and that of each kernel's scratch."""
    blocks: list[Block] = []
    block_of, scratch_of = [-1] * len(problem.sizes), []

    def add(first: int, last: int, size: int) -> int:
        blocks.append((Span(first, last, size),))
        return len(blocks) - 1

    for source in problem.sources:
        if found.born[source] >= 0:
            block_of[source] = add(found.born[source], found.dies[source], problem.sizes[source])
    for t, kernel in enumerate(found.order):
        output, over = problem.writes[kernel], found.overwrites[t]
        span = Span(t, found.dies[output], problem.sizes[output])
        scratch = None
        if over is not None:
            b = block_of[output] = block_of[over]
            blocks[b] = (*blocks[b], span)
            if problem.scratch[kernel]:
                scratch = add(t, t, problem.scratch[kernel])
        elif output not in problem.reads[kernel]:
            block_of[output] = add(span.first, span.last, span.size)
        scratch_of.append(scratch)
    return blocks, block_of, scratch_of


def _changed(
    problem: Storages, changed: Storages, order: Sequence[int], generator: random.Random
) -> tuple[Storages, tuple[int, ...]]:
    """One to three changes: a kernel runs earlier or later, or writes over another input or over none."""
    order = tuple(order)
    choices = [kernel for kernel, inputs in enumerate(problem.overwritable) if inputs]
    for _ in range(generator.choice((1, 1, 2, 3))):
        if not choices or generator.random() < _MOVE:
            order = _moved(problem, order, generator)
            continue
        kernel = generator.choice(choices)
        over, inputs = list(changed.overwritable), problem.overwritable[kernel]
        none = bool(over[kernel]) and generator.random() < 0.5
        over[kernel] = () if none else tuple(generator.sample(inputs, len(inputs)))
        changed = replace(changed, overwritable=tuple(over))
    return changed, order


def _moved(problem: Storages, order: Sequence[int], generator: random.Random) -> tuple[int, ...]:
    """The order with one kernel at another place where it may run."""
    kernel = generator.choice(order)
    place_of = {k: t for t, k in enumerate(order)}
    earliest = max((place_of[k] + 1 for k in problem.after[kernel]), default=0)
    latest = min((t for t, k in enumerate(order) if kernel in problem.after[k]), default=len(order)) - 1
    moved = [k for k in order if k != kernel]
    moved.insert(generator.randint(earliest, latest), kernel)
    return tuple(moved)
