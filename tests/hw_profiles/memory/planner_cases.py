"""Networks to plan, and the smallest arena for them as an exact solver finds it."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from ortools.sat.python import cp_model

from compress.pruning.arch_widths import prunable_groups, pruned_arch
from hw_profiles.memory.inplace import overwritable, scratch_bytes
from hw_profiles.network.workload import VIEWS, Op, Workload, WorkloadBuilder
from hw_profiles.runtimes.fusion import Kernel
from search_spaces import sample

SPACES = ("mobilenet", "efficientnet", "fused", "tiny")
UNIT = 16  # the alignment


def pruned_network(seed: int) -> Workload:
    """A random network of a space, each group of channels cut to an odd width."""
    arch = sample(SPACES[seed % len(SPACES)], seed=seed)
    groups = prunable_groups(arch)
    generator = random.Random(seed)
    kept = {g: torch.arange(generator.randint(1 + groups.width[g] // 3, groups.width[g])) for g in groups.prunable()}
    return pruned_arch(arch, groups, kept).workload().with_precision("int8")


def branching_network(seed: int, count: int = 20) -> Workload:
    """``count`` random operations that read any of the last six tensors, and a last one that reads what is left."""
    generator = random.Random(seed)
    b = WorkloadBuilder("input", (1, generator.randint(1, 16), 8, 8))
    names, unread = ["input"], {"input"}
    for i in range(count - 1):
        name, x = f"n{i}", generator.choice(names[-6:])
        shape, inputs = b.shapes[x], [x]
        same = [y for y in names if b.shapes[y] == shape and y != x]
        kind = generator.choice(("conv", "conv", "depthwise", "add", "relu", "pool"))
        if kind == "add" and same:
            inputs.append(generator.choice(same))
            b.binary(name, "add", *inputs)
        elif kind == "relu":
            b.activation(name, x, "relu")
        elif kind == "pool":
            b.pool(name, "max_pool", x, kernel_size=3, stride=2, padding=(1, 1, 1, 1))
        elif kind == "depthwise" and shape[1] > 1:
            b.conv(name, x, shape[1], kernel_size=3, groups=shape[1], stride=generator.choice((1, 1, 2)))
        else:
            b.conv(name, x, generator.randint(1, 40), kernel_size=3, stride=generator.choice((1, 1, 1, 2)))
        names.append(name)
        unread = (unread - set(inputs)) | {name}
    channels = sum(b.shapes[name][1] for name in unread)
    b.append(Op("out", "concat", tuple(sorted(unread))), (1, channels, 2, 2))
    return b.build().with_precision("int8")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exact:
    """The smallest arena that the solver found, and whether it proved that there is none smaller."""

    arena_bytes: int
    proven: bool


def exact_arena(workload: Workload, kernels: tuple[Kernel, ...], seconds: float) -> Exact:
    """What CP-SAT finds within ``seconds`` on one core."""
    model = _Model(workload, kernels)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    status = solver.solve(model.model)
    assert status in (cp_model.OPTIMAL, cp_model.FEASIBLE), solver.status_name(status)
    return Exact(arena_bytes=UNIT * int(solver.objective_value), proven=status == cp_model.OPTIMAL)


class _Model:
    """Order, offsets and what is written over as one model: blocks are rectangles over time and address.

    A kernel runs in the two instants ``2 p`` and ``2 p + 1`` of its position ``p``. An input that is written over
    exists in the first of them, what is written over it from the second one on, at the same address.
    """

    def __init__(self, workload: Workload, kernels: tuple[Kernel, ...]) -> None:
        self.workload, self.kernels, self.model = workload, kernels, cp_model.CpModel()
        self.root = {name: name for name in workload.shapes}
        for op in workload.ops:
            if op.kind in VIEWS:
                self.root[op.name] = self.root[op.inputs[0]]
        self.made = {self.root[kernel.output]: i for i, kernel in enumerate(kernels)}
        self.consumers: dict[str, list[int]] = {self.root[workload.input]: [], **{name: [] for name in self.made}}
        for i, kernel in enumerate(kernels):
            for name in {self.root[x] for x in kernel.inputs}:
                self.consumers[name].append(i)
        self.units = {name: -(-workload.tensor_bytes(name) // UNIT) for name in self.consumers}
        self.most, self.instants = sum(self.units.values()), 2 * len(kernels)
        self.arena = self.number(self.most)
        self.start = {name: self.number(self.instants) for name in self.consumers}
        self.end = {name: self.number(self.instants) for name in self.consumers}
        self.offset = {name: self.number(self.most) for name in self.consumers}
        self.over: dict[tuple[int, str], cp_model.IntVar] = {}
        self.rectangles: list[tuple[cp_model.IntervalVar, cp_model.IntervalVar, int]] = []
        self.order()
        for i in range(len(kernels)):
            self.kernel(i)
        for name in self.consumers:
            self.tensor(name)
        self.model.add_no_overlap_2d([r[0] for r in self.rectangles], [r[1] for r in self.rectangles])
        self.model.add_cumulative([r[0] for r in self.rectangles], [r[2] for r in self.rectangles], self.arena)
        self.model.minimize(self.arena)

    def number(self, most: int) -> cp_model.IntVar:
        return self.model.new_int_var(0, most, "")

    def order(self) -> None:
        self.position = [self.number(len(self.kernels) - 1) for _ in self.kernels]
        self.model.add_all_different(self.position)
        for name, writer in self.made.items():
            for reader in self.consumers[name]:
                self.model.add(self.position[writer] < self.position[reader])

    def kernel(self, i: int) -> None:
        model, kernel, at = self.model, self.kernels[i], 2 * self.position[i]
        output = self.root[kernel.output]
        scratch = -(-scratch_bytes(self.workload, kernel, "c99") // UNIT)
        choices = {self.root[name] for name in overwritable(self.workload, kernel, "c99")}
        choices -= {self.root[self.workload.output]}
        for name in sorted(choices):
            chosen = self.over[i, name] = model.new_bool_var("")
            model.add(self.offset[output] == self.offset[name]).only_enforce_if(chosen)
            for reader in set(self.consumers[name]) - {i}:
                model.add(self.position[reader] < self.position[i]).only_enforce_if(chosen)
            if scratch:
                low = self.number(self.most)
                x = model.new_optional_fixed_size_interval_var(at, 2, chosen, "")
                y = model.new_optional_fixed_size_interval_var(low, scratch, chosen, "")
                self.rectangles.append((x, y, scratch))
                model.add(self.arena >= low + scratch).only_enforce_if(chosen)
        overwrites = sum(self.over[i, name] for name in choices)
        model.add(overwrites <= 1)
        model.add(self.start[output] == at + overwrites)
        model.add(self.end[output] >= at + 2)

    def tensor(self, name: str) -> None:
        model, start, end, units = self.model, self.start[name], self.end[name], self.units[name]
        if name not in self.made:
            model.add(start == 0)
        if name == self.root[self.workload.output]:
            model.add(end == self.instants)
        for i in self.consumers[name]:
            model.add(end >= 2 * self.position[i] + 2 - self.over.get((i, name), 0))
        x = model.new_interval_var(start, self.number(self.instants), end, "")
        y = model.new_fixed_size_interval_var(self.offset[name], units, "")
        self.rectangles.append((x, y, units))
        model.add(self.arena >= self.offset[name] + units)
