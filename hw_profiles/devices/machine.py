"""Identifies this machine: the conditions that a measurement depends on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path


def conditions(threads: int) -> dict[str, str]:
    """CPU, machine, runtime version and threads of a measurement here.

    >>> sorted(conditions(1))
    ['cpu', 'machine', 'onnxruntime', 'threads']
    """
    return dict(_conditions(threads))


def matches_this_machine(stated: Mapping[str, str], threads: int) -> bool:
    """Whether numbers that were taken under the stated conditions are of this machine and this runtime."""
    return all(stated.get(name) == value for name, value in _conditions(threads).items())


@cache
def _conditions(threads: int) -> Mapping[str, str]:
    import onnxruntime

    return {
        "cpu": _cpu_name(),
        "machine": platform.machine(),
        "onnxruntime": onnxruntime.__version__,
        "threads": str(threads),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
