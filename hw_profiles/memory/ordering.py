"""The order of kernels with the lowest peak of live memory."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

from hw_profiles.memory.lifetimes import Storages, lifetimes

STEPS = 20_000
"""How many times the search looks at a kernel before it takes the best order that it has."""
_LOOKED_AT = 32  # kernels among which a hasty choice is made, however many could run


def best_order(problem: Storages, *, steps: int = STEPS) -> tuple[int, ...]:
    """The order with the smallest peak, or a good one where finding it takes more than ``steps`` looks at a kernel.

    What is alive after some kernels ran depends on which they were, not on their order. So the search goes over sets of
    kernels, those with the smallest peak so far first, and the first complete one is optimal. A kernel that raises
    neither the peak nor what stays alive runs at once: nothing is gained by waiting. In a chain with shortcuts that
    leaves almost no choice.

    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from hw_profiles.memory.lifetimes import storages
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> best_order(storages(w, fuse(w, "c99"), "c99"))[:3]
    (0, 1, 2)
    """
    search = _Search(problem)
    given = tuple(range(len(problem.writes)))
    limit = max(lifetimes(problem, given).live)
    if limit <= search.floor:
        return given
    waiting: list[tuple[int, int, int, _State, _Step]] = []
    lowest: dict[int, int] = {}
    pushed = itertools.count()
    state = search.start()
    while search.looks < steps:
        state = search.forced(state)
        if len(state.path) == len(given):
            return state.path
        for step in search.steps(state):
            done = state.done | 1 << step.kernel
            if step.peak < min(limit, lowest.get(done, limit)):
                lowest[done] = step.peak
                heapq.heappush(waiting, (step.peak, -len(state.path), next(pushed), state, step))
        if not waiting:
            return given
        *_, state, step = heapq.heappop(waiting)
        state = search.follow(state, step)
    hasty = search.hasty(state)
    return min((given, hasty), key=lambda order: max(lifetimes(problem, order).live))


@dataclass(frozen=True, slots=True)
class _Step:
    """What running a kernel next leads to: the highest peak until then, and the bytes alive after it."""

    kernel: int
    peak: int
    alive: int


@dataclass(frozen=True, slots=True)
class _State:
    """Kernels that ran, as bits and in order, those that could run next, the highest peak, the bytes alive now."""

    done: int
    path: tuple[int, ...]
    ready: tuple[int, ...]
    peak: int
    alive: int


class _Search:
    """The problem as bit masks. ``looks`` counts the work; ``floor`` is a peak that no order can be under."""

    def __init__(self, problem: Storages) -> None:
        self.problem = problem
        self.looks = 0
        count = len(problem.writes)
        self.consumers = [0] * len(problem.sizes)
        self.needs = [sum(1 << k for k in before) for before in problem.after]
        self.followers: list[list[int]] = [[] for _ in range(count)]
        self.floor = 0
        for kernel, reads in enumerate(problem.reads):
            for storage in reads:
                self.consumers[storage] |= 1 << kernel
            for k in problem.after[kernel]:
                self.followers[k].append(kernel)
            output = problem.writes[kernel]
            extra = problem.scratch[kernel] if problem.overwritable[kernel] else problem.sizes[output]
            held = sum(problem.sizes[s] for s in reads)
            self.floor = max(self.floor, held if output in reads else held + extra)
        for result in problem.results:
            self.consumers[result] |= 1 << count  # the caller, who never runs

    def start(self) -> _State:
        """Nothing ran; the network's input is there."""
        alive = sum(self.problem.sizes[source] for source in self.problem.sources if self.consumers[source])
        ready = tuple(k for k, needed in enumerate(self.needs) if not needed)
        return _State(0, (), ready, self.floor, alive)

    def look(self, done: int, peak: int, alive: int, kernel: int) -> _Step:
        """Run ``kernel`` after those of ``done``."""
        self.looks += 1
        problem, consumers = self.problem, self.consumers
        sizes, output, reads = problem.sizes, problem.writes[kernel], problem.reads[kernel]
        left = ~(done | 1 << kernel)
        grown = 0 if output in reads else sizes[output]
        during = alive + grown
        after = during
        for storage in reads:
            if storage != output and not consumers[storage] & left:
                after -= sizes[storage]
                if storage in problem.overwritable[kernel]:
                    during = alive + problem.scratch[kernel]
        if not consumers[output] & left:
            after -= sizes[output]
        return _Step(kernel, max(peak, during), after)

    def steps(self, state: _State) -> list[_Step]:
        """Every kernel that could run next."""
        return [self.look(state.done, state.peak, state.alive, kernel) for kernel in state.ready]

    def forced(self, state: _State) -> _State:
        """Run what costs nothing, and what is the only choice as long as it raises no peak."""
        moved = True
        while moved:
            moved = False
            for kernel in state.ready:
                step = self.look(state.done, state.peak, state.alive, kernel)
                if step.peak <= state.peak and (step.alive <= state.alive or len(state.ready) == 1):
                    state, moved = self.follow(state, step), True
                    break
        return state

    def follow(self, state: _State, step: _Step) -> _State:
        """The state after a step."""
        done = state.done | 1 << step.kernel
        ready = [k for k in state.ready if k != step.kernel]
        ready += [k for k in self.followers[step.kernel] if not self.needs[k] & ~done]
        return _State(done, (*state.path, step.kernel), tuple(ready), step.peak, step.alive)

    def hasty(self, state: _State) -> tuple[int, ...]:
        """Complete an order without looking back, from the kernels that became ready last."""
        done, peak, alive = state.done, state.peak, state.alive
        path, ready = list(state.path), list(state.ready)
        while ready:
            near = ready[-_LOOKED_AT:]
            step = min((self.look(done, peak, alive, k) for k in near), key=lambda s: (s.peak, s.alive))
            done, peak, alive = done | 1 << step.kernel, step.peak, step.alive
            path.append(step.kernel)
            ready.remove(step.kernel)
            ready += [k for k in self.followers[step.kernel] if not self.needs[k] & ~done]
        return tuple(path)
