"""Limits the memory of a worker process."""

from __future__ import annotations

import sys
from pathlib import Path

_SHARE = 0.8  # the rest is for this process and for what else the machine does
_LEAST = 1024**3  # less does not even load torch


def fair_share(workers: int) -> int:
    """Bytes for each of so many workers: together 80% of what is free now, at least 1 GiB.

    >>> fair_share(1) >= fair_share(4) >= 2**30
    True
    """
    return max(_LEAST, int(_SHARE * available_bytes() / workers))


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that is free: on the machine, and in the control groups that this process is in."""
    return min([_free_on_machine(root), *_free_in_groups(root)])


def limit_memory(limit: int | None) -> None:
    """Make allocations of this process fail beyond ``limit`` bytes, where the system can (Linux); None ends that."""
    if sys.platform != "linux":
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    allowed = hard if limit is None else limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))


def _free_on_machine(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:  # macOS has no /proc
        import os

        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(facts["MemAvailable"].split()[0]) * 1024


def _free_in_groups(root: Path) -> list[int]:
    """What each limit leaves, of the groups from this process's own to the outermost (cgroup v2 and v1)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    free = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            v2 = controllers == ""
            mount = root / ("sys/fs/cgroup" if v2 else "sys/fs/cgroup/memory")
            # Inside a container the path may be that of the host, and the own group is at the mount itself.
            group = mount / path.strip("/")
            for folder in {mount, *(each for each in (group, *group.parents) if each.is_relative_to(mount))}:
                free += _free_in_group(folder, v2=v2)
    return free


def _free_in_group(folder: Path, *, v2: bool) -> list[int]:
    names = ("memory.max", "memory.current") if v2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    try:
        limit, used = ((folder / name).read_text().strip() for name in names)
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:  # the outermost group has no limit, and no such file
        return []
    if limit == "max":
        return []
    # Of the page cache the kernel gives back what nobody used lately.
    reclaimable = int(stat.get("inactive_file" if v2 else "total_inactive_file", 0))
    return [max(0, int(limit) - int(used) + reclaimable)]
