"""The cost of a network at other widths of its groups of channels, from the profile of a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from compress.pruning.prunable_network import PrunableNetwork
from hw_profiles.devices.device import Device
from hw_profiles.memory.planner import plan
from hw_profiles.network.workload import Workload
from hw_profiles.profiling import Profile, profile, workload_of
from hw_profiles.runtimes.fusion import fuse

COST_NAMES = ("latency_ms", "peak_ram_bytes", "macs")
_NEAR = 2  # operations between two groups on which the cost of one may depend on the width of the other


class CostModel:
    """A network on a device, in the precision in which it will run, with its groups of channels at any widths.

    >>> from compress.pruning.prunable_network import module_network
    >>> from hw_profiles import load_device
    >>> from search_spaces import build_model, preset
    >>> network = module_network(build_model(preset("resnet8")).eval(), (3, 32, 32))
    >>> cost_model = CostModel(network, load_device("host"), "fp32", {})
    >>> cost_model.saved("macs", cost_model.width, "stages.0.0.conv1.conv", 8)
    2359296.0
    """

    def __init__(self, network: PrunableNetwork, device: Device, precision: str, limits: Mapping[str, float]) -> None:
        self.limits = limits
        self.width = network.width
        self._at, self._device, self._precision = network.at, device, precision
        self._near: Mapping[str, tuple[str, ...]] | None = None
        self._profiles: dict[tuple[int, ...], Profile] = {}
        self._savings: dict[tuple[object, ...], float] = {}

    def value(self, name: str, width: Mapping[str, int]) -> float:
        """One of ``COST_NAMES`` at these widths of the groups."""
        return float(getattr(self._profile(width), name))

    def broken(self, width: Mapping[str, int]) -> list[str]:
        """The limits that do not hold at these widths."""
        return [name for name, limit in self.limits.items() if self.value(name, width) > limit]

    def least(self, name: str) -> float:
        """The least of a quantity among all widths that were requested."""
        return min(float(getattr(found, name)) for found in self._profiles.values())

    def saved(self, name: str, width: Mapping[str, int], group: str, narrower: int) -> float:
        """How much less of a quantity there is once a group is narrower.

        Of RAM it is what all kernels together need less above the limit, not the peak alone: where several need as
        much as each other, one that needs less lowers no peak, and yet it has to.
        """
        if self._near is None:
            self._near = self._neighbors()
        # A group's cost depends on the widths of its own layers and, through the layout at their seams, of the next.
        key = (name, self.limits.get(name), group, narrower, *(width[near] for near in self._near[group]))
        if key not in self._savings:
            changed = {**width, group: narrower}
            self._savings[key] = self._cost(name, width) - self._cost(name, changed)
        return self._savings[key]

    def saved_of_limits(self, width: Mapping[str, int], group: str, narrower: int) -> float:
        """What is saved of all limits that do not hold, each as a share of it."""
        return sum(self.saved(name, width, group, narrower) / self.limits[name] for name in self.broken(width))

    def _cost(self, name: str, width: Mapping[str, int]) -> float:
        if name != "peak_ram_bytes":
            return self.value(name, width)
        workload = workload_of(self._at(width)).with_precision(self._precision)
        schedule = plan(workload, fuse(workload, self._device.runtime), self._device.runtime)
        return sum(max(0.0, live - self.limits.get(name, 0.0)) for live in schedule.live_bytes)

    def _profile(self, width: Mapping[str, int]) -> Profile:
        key = tuple(width[group] for group in self.width)
        if key not in self._profiles:
            self._profiles[key] = profile(self._at(width), self._device, self._precision)
        return self._profiles[key]

    def _neighbors(self) -> dict[str, tuple[str, ...]]:
        """For each group those that have operations in common with it, or with the operations next to its own."""
        whole = workload_of(self._at(self.width))
        changed = {
            group: _different(whole, workload_of(self._at({**self.width, group: max(1, width - 1)})))
            for group, width in self.width.items()
        }
        near = {group: _with_neighbors(whole, names, _NEAR) for group, names in changed.items()}
        return {
            group: tuple(other for other, names in changed.items() if other == group or names & near[group])
            for group in changed
        }


def _different(one: Workload, other: Workload) -> set[str]:
    """The operations whose output or weights have other sides."""
    return {
        op.name
        for op, less in zip(one.ops, other.ops, strict=True)
        if one.shapes[op.name] != other.shapes[op.name] or op.weight_shape != less.weight_shape
    }


def _with_neighbors(workload: Workload, names: Iterable[str], distance: int) -> set[str]:
    """The operations and those that are so many tensors away from them."""
    found = set(names)
    for _ in range(distance):
        touching = [{op.name, *op.inputs} for op in workload.ops]
        found = set().union(*(each for each in touching if each & found)) - {workload.input}
    return found
