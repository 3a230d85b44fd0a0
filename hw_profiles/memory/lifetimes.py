"""Lifetimes of the buffers that kernels read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hw_profiles.errors import InputError
from hw_profiles.memory.inplace import overwritable, scratch_bytes
from hw_profiles.network.workload import VIEWS, Workload
from hw_profiles.runtimes.fusion import Kernel


@dataclass(frozen=True, kw_only=True, slots=True)
class Storages:
    """What planning needs to know: kernel ``i`` reads the storages ``reads[i]`` and writes ``writes[i]``.

    ``of`` is the storage of each tensor, ``sizes`` the bytes of each storage. The storages ``sources`` hold the
    network's inputs, ``results`` its outputs. Kernel ``i`` may write over one of ``overwritable[i]`` when it is its
    last reader, and then needs ``scratch[i]`` bytes. It must run after all of ``after[i]``.
    """

    of: Mapping[str, int]
    sizes: tuple[int, ...]
    sources: tuple[int, ...]
    results: tuple[int, ...]
    reads: tuple[tuple[int, ...], ...]
    writes: tuple[int, ...]
    overwritable: tuple[tuple[int, ...], ...]
    scratch: tuple[int, ...]
    after: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lifetimes:
    """What is alive when the kernels run in ``order``.

    ``live[t]`` are the bytes that must exist during the ``t``-th kernel, ``overwrites[t]`` the storage that it writes
    over, ``born`` and ``dies`` the first and last kernel, counted in order, that needs a storage (-1: none does; what
    the caller reads dies behind the last one).
    """

    order: tuple[int, ...]
    live: tuple[int, ...]
    overwrites: tuple[int | None, ...]
    born: tuple[int, ...]
    dies: tuple[int, ...]


def storages(workload: Workload, kernels: Sequence[Kernel], runtime: str) -> Storages:
    """Numbers for the tensors of ``kernels``; flattened and reshaped tensors share the storage of their input.

    Raises:
        InputError: a kernel reads a tensor that no kernel before it has made.

    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> s = storages(w, fuse(w, "c99"), "c99")
    >>> s.of["pool"] == s.of["flatten"]
    True
    """
    of, sizes = _numbers(workload, kernels)
    sources = tuple(of[name] for name in workload.inputs)
    writer: dict[int, int] = {}
    consumers: list[list[int]] = [[] for _ in sizes]
    reads, writes, over, scratch, after = [], [], [], [], []
    for i, kernel in enumerate(kernels):
        inputs: list[int] = []
        waits = set()
        for name in kernel.inputs:
            storage = of.get(name, -1)
            if storage in writer:
                waits.add(writer[storage])
            elif storage not in sources:
                raise InputError(f"kernel {kernel.output}: every input must be made by an earlier kernel, got {name!r}")
            if storage not in inputs:
                inputs.append(storage)
        output = of[kernel.output]
        if kernel.output in kernel.inputs:  # whoever reads the tensor as it was comes first
            waits.update(j for j in consumers[output] if j >= writer.get(output, 0))
        for storage in inputs:
            consumers[storage].append(i)
        writer[output] = i
        names = overwritable(workload, kernel, runtime)
        reads.append(tuple(inputs))
        writes.append(output)
        over.append(tuple([of[name] for name in names if of[name] != output]))
        scratch.append(scratch_bytes(workload, kernel, runtime) if names else 0)
        after.append(tuple(waits))
    return Storages(
        of=of, sizes=tuple(sizes), sources=sources, results=tuple(of[name] for name in workload.outputs),
        reads=tuple(reads), writes=tuple(writes), overwritable=tuple(over), scratch=tuple(scratch), after=tuple(after),
    )  # fmt: skip


def lifetimes(problem: Storages, order: Sequence[int]) -> Lifetimes:
    """Follow the kernels in ``order``; the network's inputs live from the start, its outputs to the end.

    >>> from hw_profiles.runtimes.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload().with_precision("int8")
    >>> lifetimes(storages(w, fuse(w, "c99"), "c99"), range(12)).live[:3]
    (19456, 32768, 49152)
    """
    sizes, count = problem.sizes, len(problem.sizes)
    born, dies = [-1] * count, [-1] * count
    for t, kernel in enumerate(order):
        for storage in problem.reads[kernel]:
            dies[storage] = t
    read = [source for source in problem.sources if dies[source] >= 0]
    for source in read:
        born[source] = 0
    for result in problem.results:
        dies[result] = len(order)
    alive = sum([sizes[source] for source in read])
    live, overwrites = [], []
    for t, kernel in enumerate(order):
        output, reads = problem.writes[kernel], problem.reads[kernel]
        dying = [s for s in reads if dies[s] == t and s != output]
        over = next((s for s in problem.overwritable[kernel] if s in dying), None)
        grown = 0 if output in reads else sizes[output]
        live.append(alive + (grown if over is None else problem.scratch[kernel]))
        overwrites.append(over)
        if grown:
            born[output] = t
            dies[output] = max(dies[output], t)
        alive += grown - sum([sizes[s] for s in dying])
        if dies[output] == t:
            alive -= sizes[output]
    return Lifetimes(
        order=tuple(order), live=tuple(live), overwrites=tuple(overwrites), born=tuple(born), dies=tuple(dies)
    )


def _numbers(workload: Workload, kernels: Sequence[Kernel]) -> tuple[dict[str, int], list[int]]:
    """The storage of each tensor and the bytes of each storage."""
    of = {name: i for i, name in enumerate(workload.inputs)}
    sizes = [workload.tensor_bytes(name) for name in workload.inputs]
    for kernel in kernels:
        if kernel.output not in of:
            of[kernel.output] = len(sizes)
            sizes.append(kernel.output_bytes)
    for op in workload.ops:
        if op.kind in VIEWS and op.name not in of and op.inputs[0] in of:
            of[op.name] = of[op.inputs[0]]
    for output in workload.outputs:
        if output not in of:
            raise InputError(f"the network's output must be made by a kernel, got none for {output!r}")
    return of, sizes
