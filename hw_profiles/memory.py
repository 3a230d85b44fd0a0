"""How much memory the activations need at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hw_profiles.fusion import Kernel
from hw_profiles.workload import Workload


@dataclass(frozen=True, slots=True)
class Schedule:
    """The kernels in the order they run and, after each has started, the bytes of activations that must exist."""

    kernels: tuple[Kernel, ...]
    live_bytes: tuple[int, ...]

    @property
    def peak_bytes(self) -> int:
        """The largest sum of activations that live together."""
        return max(self.live_bytes)

    @property
    def peak_kernel(self) -> Kernel:
        """The kernel that runs at the peak."""
        return self.kernels[self.live_bytes.index(self.peak_bytes)]


def plan(workload: Workload, kernels: Sequence[Kernel]) -> Schedule:
    """Lifetimes in the given order: a tensor lives from the kernel that makes it to the last one that reads it.

    Elementwise kernels write over an input that nobody reads later. Weights are not counted.

    >>> from hw_profiles.fusion import fuse
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload().with_precision("int8")
    >>> plan(w, fuse(w)).peak_bytes  # two tensors of 16×32×32 while the first block adds, one more for its input
    49152
    """
    storage = _storage_of_views(workload)
    last_read = {storage[workload.output]: len(kernels)}
    for i, kernel in enumerate(kernels):
        for name in kernel.inputs:
            last_read[storage[name]] = max(i, last_read.get(storage[name], 0))
    alive = {storage[workload.input]}
    live_bytes = []
    for i, kernel in enumerate(kernels):
        dying = {storage[name] for name in kernel.inputs if last_read[storage[name]] == i}
        output = storage[kernel.output]
        in_place = kernel.kind in _IN_PLACE and any(
            workload.tensor_bytes(name) == workload.tensor_bytes(output) for name in dying
        )
        alive.add(output)
        together = sum(workload.tensor_bytes(name) for name in alive)
        live_bytes.append(together - (workload.tensor_bytes(output) if in_place and output not in dying else 0))
        alive -= dying - {output}
    return Schedule(tuple(kernels), tuple(live_bytes))


_IN_PLACE = ("add", "mul", "activation")


def _storage_of_views(workload: Workload) -> dict[str, str]:
    """Which tensor holds the bytes of each: a flattened tensor is its input."""
    storage = {name: name for name in workload.shapes}
    for op in workload.ops:
        if op.kind == "flatten":
            storage[op.name] = storage[op.inputs[0]]
    return storage
