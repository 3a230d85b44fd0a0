"""The cost of an Arch at other widths, from the profile of a device."""

from __future__ import annotations

from collections.abc import Mapping

from compress.pruning.channel_groups import block_groups, prunable_groups, with_widths
from hw_profiles.devices.device import Device
from hw_profiles.memory.planner import plan
from hw_profiles.profiling import Profile, profile
from hw_profiles.runtimes.fusion import fuse
from search_spaces.arch import Arch

COST_NAMES = ("latency_ms", "peak_ram_bytes", "macs")


class CostModel:
    """An Arch on a device, in the precision in which it will run, with its groups of channels at any widths.

    >>> from hw_profiles import load_device
    >>> from search_spaces import preset
    >>> cost_model = CostModel(preset("resnet8"), load_device("host"), "fp32", {})
    >>> cost_model.saved("macs", cost_model.width, "stages.0.0.conv1", 8)
    2359296.0
    """

    def __init__(self, arch: Arch, device: Device, precision: str, limits: Mapping[str, float]) -> None:
        self.limits = limits
        self.width = dict(prunable_groups(arch).width)
        self._arch, self._device, self._precision = arch, device, precision
        self._places = block_groups(arch, prunable_groups(arch))
        self._near = _neighbours([places.all() for places in self._places.values()])
        self._profiles: dict[tuple[int, ...], Profile] = {}
        self._savings: dict[tuple[object, ...], float] = {}

    def value(self, name: str, width: Mapping[str, int]) -> float:
        """One of ``COST_NAMES`` at these widths of the prunable groups."""
        return float(getattr(self._profile(width), name))

    def broken(self, width: Mapping[str, int] | None = None) -> list[str]:
        """The limits that do not hold at these widths, or as the network is."""
        width = self.width if width is None else width
        return [name for name, limit in self.limits.items() if self.value(name, width) > limit]

    def least(self, name: str) -> float:
        """The least of a quantity among all widths that were asked for."""
        return min(float(getattr(found, name)) for found in self._profiles.values())

    def saved(self, name: str, width: Mapping[str, int], group: str, narrower: int) -> float:
        """How much less of a quantity there is once a group is narrower.

        Of RAM it is what all kernels together need less above the limit, not the peak alone: where several need as
        much as each other, one that needs less lowers no peak, and yet it has to.
        """
        # A block's cost depends on its own widths and, through the layout at its seams, on its neighbours'.
        key = (name, group, narrower, *(width.get(near, 0) for near in self._near[group]))
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
        workload = self._at(width).workload().with_precision(self._precision)
        schedule = plan(workload, fuse(workload, self._device.runtime), self._device.runtime)
        return sum(max(0.0, live - self.limits.get(name, 0.0)) for live in schedule.live_bytes)

    def _profile(self, width: Mapping[str, int]) -> Profile:
        key = tuple(width.values())
        if key not in self._profiles:
            self._profiles[key] = profile(self._at(width), self._device, self._precision)
        return self._profiles[key]

    def _at(self, width: Mapping[str, int]) -> Arch:
        return with_widths(self._arch, self._places, {**self.width, **width})


def _neighbours(blocks: list[set[str]]) -> dict[str, tuple[str, ...]]:
    """For each group those of the blocks that it is in, and of the blocks before and after them."""
    near: dict[str, set[str]] = {}
    for i, block in enumerate(blocks):
        around = set().union(*blocks[max(0, i - 1) : i + 2])
        for group in block:
            near.setdefault(group, set()).update(around)
    return {group: tuple(sorted(groups)) for group, groups in near.items()}
