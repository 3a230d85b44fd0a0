"""How much memory the activations need: the planner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from hw_profiles.arena import Arena, smallest_arena
from hw_profiles.fusion import RUNTIMES, Kernel
from hw_profiles.inplace import overwritable
from hw_profiles.names import did_you_mean
from hw_profiles.storage import Lifetimes, Storages, lifetimes, storages
from hw_profiles.workload import VIEWS, Workload

ALIGNMENT = 16
"""Every block in the arena of a C99 program starts at a multiple of so many bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The kernels in the order in which they run, and the memory of their activations. Weights are not counted.

    - ``live_bytes``: for each kernel, the bytes that must exist while it runs, its scratch included.
    - ``overwrites``: for each kernel the input that it writes its output over, or None.
    - ``scratch``: for each kernel the bytes that it needs beside its tensors.
    - ``offsets``: the first byte of each tensor in the arena; ``scratch_offsets``: of each kernel's scratch, or None.
      Both are empty where the runtime decides that itself.
    - ``arena_bytes``: the end of the last byte in use, alignment included.

    >>> from hw_profiles.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("mobilenetv2_035", input_shape=(3, 96, 96)).workload().with_precision("int8")
    >>> schedule = plan(w, fuse(w, "c99"), "c99")
    >>> schedule.overwrites[1], schedule.offsets["stem.act"] == schedule.offsets["stages.0.0.depthwise.act"]
    ('stem.act', True)
    """

    kernels: tuple[Kernel, ...]
    live_bytes: tuple[int, ...]
    overwrites: tuple[str | None, ...]
    scratch: tuple[int, ...]
    offsets: Mapping[str, int]
    scratch_offsets: tuple[int | None, ...]
    arena_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The largest sum of activations that live together: no arena can be smaller in this order."""
        return max(self.live_bytes)

    @property
    def peak_kernel(self) -> Kernel:
        """The kernel that runs at the peak."""
        return self.kernels[self.live_bytes.index(self.peak_bytes)]


def plan(workload: Workload, kernels: Sequence[Kernel], runtime: str = "ort") -> Schedule:
    """When each tensor lives, and where.

    A tensor lives from the kernel that makes it to the last one that reads it. Flattened and reshaped tensors are
    their input. Which kernels write over an input is said by :func:`hw_profiles.inplace.overwritable`.

    ``"ort"``: ONNX Runtime keeps the given order and allocates while it runs, so there are no offsets and the arena is
    the peak. The network's input counts until its last reader, and its output from when it is made.

    ``"c99"``: order, offsets and what is written over are chosen for the smallest static arena. The input lies in it as
    well, and may be overwritten after its last reader; the output is there in the end.

    Raises:
        ValueError: an unknown runtime, no kernel, or a kernel that reads what none before it has made.

    >>> from hw_profiles.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload().with_precision("int8")
    >>> plan(w, fuse(w)).peak_bytes  # three tensors of 16×32×32: what the first block adds, and its input
    49152
    """
    if runtime not in RUNTIMES:
        raise ValueError(
            f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}{did_you_mean(runtime, RUNTIMES)}"
        )
    if not kernels:
        raise ValueError("kernels must hold at least one, got none")
    if runtime == "ort":
        return _as_given(workload, kernels)
    problem = storages(workload, kernels, runtime)
    arena = smallest_arena(_aligned(problem))
    overwrites = dict(zip(arena.lifetimes.order, arena.lifetimes.overwrites, strict=True))
    chosen = tuple(() if over is None else (over,) for _, over in sorted(overwrites.items()))
    found = lifetimes(replace(problem, overwritable=chosen), arena.lifetimes.order)
    return _schedule(kernels, problem, found, arena)


def _aligned(problem: Storages) -> Storages:
    def up(sizes: Sequence[int]) -> tuple[int, ...]:
        return tuple(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)

    return replace(problem, sizes=up(problem.sizes), scratch=up(problem.scratch))


def _schedule(kernels: Sequence[Kernel], problem: Storages, found: Lifetimes, arena: Arena) -> Schedule:
    ordered = tuple(kernels[k] for k in found.order)
    overwrites = tuple(
        None if over is None else next(name for name in kernel.inputs if problem.of[name] == over)
        for kernel, over in zip(ordered, found.overwrites, strict=True)
    )
    scratch = tuple(
        0 if over is None else problem.scratch[k] for k, over in zip(found.order, found.overwrites, strict=True)
    )
    offsets = {name: arena.offsets[storage] for name, storage in problem.of.items() if found.born[storage] >= 0}
    return Schedule(
        kernels=ordered,
        live_bytes=found.live,
        overwrites=overwrites,
        scratch=scratch,
        offsets=MappingProxyType(offsets),
        scratch_offsets=arena.scratch,
        arena_bytes=arena.size,
    )


def _as_given(workload: Workload, kernels: Sequence[Kernel]) -> Schedule:
    """ONNX Runtime's: the kernels in their order. A search plans thousands of these, so nothing is made that it needs
    not: tensors are followed by name.
    """
    source, result = workload.input, workload.output
    holder = {op.name: op.inputs[0] for op in workload.ops if op.kind in VIEWS}
    sizes = {source: workload.tensor_bytes(source)}
    last_read: dict[str, int] = {}
    for i, kernel in enumerate(kernels):
        for name in kernel.inputs:
            held = _held(name, sizes, holder)
            if held not in sizes:
                raise ValueError(f"kernel {kernel.output}: every input must be made by an earlier kernel, got {name!r}")
            last_read[held] = i
        sizes.setdefault(kernel.output, kernel.output_bytes)
    result = _held(result, sizes, holder)
    if result not in sizes:
        raise ValueError(f"the network's output must be made by a kernel, got none for {workload.output!r}")
    last_read[result] = len(kernels)
    alive = sizes[source] if source in last_read else 0
    made = {source}
    live, overwrites = [], []
    for i, kernel in enumerate(kernels):
        output = kernel.output
        grown = 0 if output in made else sizes[output]
        names = kernel.inputs if not holder else [_held(name, sizes, holder) for name in kernel.inputs]
        dying = {name for name in names if last_read[name] == i and name != output}
        over = next((name for name in overwritable(workload, kernel) if name in dying), None)
        live.append(alive + (grown if over is None else 0))
        overwrites.append(over)
        made.add(output)
        alive += grown - sum([sizes[name] for name in dying])
        if last_read.get(output, i) <= i:
            alive -= sizes[output]
    return Schedule(
        kernels=tuple(kernels),
        live_bytes=tuple(live),
        overwrites=tuple(overwrites),
        scratch=(0,) * len(kernels),
        offsets=MappingProxyType({}),
        scratch_offsets=(),
        arena_bytes=max(live),
    )


def _held(name: str, sizes: Mapping[str, int], holder: Mapping[str, str]) -> str:
    """The tensor whose bytes a view is."""
    while name not in sizes and name in holder:
        name = holder[name]
    return name
