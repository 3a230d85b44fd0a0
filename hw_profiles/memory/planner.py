"""Plans the memory of activations: peak RAM and arena."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from types import MappingProxyType

from hw_profiles.errors import InputError
from hw_profiles.memory.arena import Arena, smallest_arena
from hw_profiles.memory.inplace import overwritable_ort
from hw_profiles.memory.lifetimes import Lifetimes, Storages, lifetimes, storages
from hw_profiles.network.workload import VIEWS, Workload
from hw_profiles.runtimes.fusion import RUNTIMES, Kernel
from hw_profiles.spelling_suggestions import check_one_of

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

    >>> from hw_profiles.runtimes.fusion import fuse
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


def plan(workload: Workload, kernels: Sequence[Kernel], runtime: str = "ort") -> Schedule:
    """When each tensor lives, and where.

    A tensor lives from the kernel that makes it to the last one that reads it. Flattened and reshaped tensors are
    their input. Which kernels write over an input is decided by :func:`hw_profiles.memory.inplace.overwritable`.

    ``"ort"``: ONNX Runtime keeps the given order and allocates while it runs, so there are no offsets and the arena is
    the peak. The network's input counts until its last reader, and its output from when it is made.

    The other runtimes are planned like it, ``"c99"`` excepted.

    ``"c99"``: order, offsets and what is written over are chosen for the smallest static arena. The input lies in it as
    well, and may be overwritten after its last reader; the output is there in the end.

    Raises:
        InputError: an unknown runtime, no kernel, or a kernel that reads what none before it has made.

    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload().with_precision("int8")
    >>> plan(w, fuse(w)).peak_bytes  # three tensors of 16×32×32: what the first block adds, and its input
    49152
    """
    check_one_of("runtime", runtime, RUNTIMES)
    if not kernels:
        raise InputError("kernels must hold at least one, got none")
    if runtime != "c99":
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


def peak_of_part(workload: Workload, kernels: Sequence[Kernel], entry_bytes: int, kept: Collection[str]) -> int:
    """The most that lives at once while ONNX Runtime runs a stretch of a network that reads one tensor and leaves one.

    ``entry_bytes`` is the size of what it reads; ``kept`` are those of the two tensors that the caller of the network
    holds, and no kernel writes over.
    """
    live, _ = _follow(workload, kernels, entry_bytes, kept)
    return max(live, default=entry_bytes)


def _as_given(workload: Workload, kernels: Sequence[Kernel]) -> Schedule:
    """ONNX Runtime's: the kernels in their order."""
    live, overwrites = _follow(
        workload, kernels, workload.tensor_bytes(workload.input), (*workload.inputs, *workload.outputs)
    )
    return Schedule(
        kernels=tuple(kernels),
        live_bytes=tuple(live),
        overwrites=tuple(overwrites),
        scratch=(0,) * len(kernels),
        offsets=MappingProxyType({}),
        scratch_offsets=(),
        arena_bytes=max(live),
    )


def _follow(
    workload: Workload, kernels: Sequence[Kernel], source_bytes: int, kept: Collection[str]
) -> tuple[list[int], list[str | None]]:
    """What lives while each kernel runs, and what it writes over. A search plans thousands of these, so nothing is made
    that it needs not: tensors are followed by name, and of each kernel only what is born or dies.
    """
    sizes, born, dies = _lives(workload, kernels, source_bytes)
    overwrites: list[str | None] = [None] * len(kernels)
    change = [0] * (len(kernels) + 2)
    for name, i in born.items():
        change[i] += sizes[name]
    for name, i in dies.items():
        change[i + 1] -= sizes[name]
    for i, kernel in enumerate(kernels):
        output = kernel.output
        for name in overwritable_ort(workload, kernel, kept):
            if dies.get(name) == i and born[output] == i:
                overwrites[i] = name
                change[i] -= sizes[output]  # it takes no room of its own before its input is dead
                change[i + 1] += sizes[output]
                break
    return list(accumulate(change[: len(kernels)])), overwrites


def _lives(
    workload: Workload, kernels: Sequence[Kernel], source_bytes: int
) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """The bytes of each tensor that is no view, the kernel that makes it, and the last one that needs it."""
    holder = {op.name: op.inputs[0] for op in workload.ops if op.kind in VIEWS}
    sizes = {workload.input: source_bytes, **{name: workload.tensor_bytes(name) for name in workload.further_inputs}}
    born, dies = {}, {}
    for i, kernel in enumerate(kernels):
        for name in kernel.inputs:
            held = name if name in sizes else _held(name, sizes, holder)
            if held not in sizes:
                raise InputError(f"kernel {kernel.output}: every input must be made by an earlier kernel, got {name!r}")
            dies[held] = i
        if kernel.output not in sizes:
            sizes[kernel.output] = kernel.output_bytes
            born[kernel.output] = dies[kernel.output] = i
    for output in workload.outputs:
        result = _held(output, sizes, holder)
        if result not in sizes:
            raise InputError(f"the network's output must be made by a kernel, got none for {output!r}")
        dies[result] = len(kernels)
    born.update((name, 0) for name in workload.inputs if name in dies)
    return sizes, born, dies


def _held(name: str, sizes: Mapping[str, int], holder: Mapping[str, str]) -> str:
    """The tensor whose bytes a view is."""
    while name not in sizes and name in holder:
        name = holder[name]
    return name
