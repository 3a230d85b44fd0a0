"""Identifies this machine: the conditions that a measurement depends on.

The script of a kit contains this module as it is, so it imports nothing of fitnas.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

CLOCKS = ("clock_mhz", "memory_mt_per_s")
"""Conditions that are recorded and not compared: many machines state none, and others change theirs."""

_COMPARED = ("cpu", "family", "model", "stepping", "flags", "caches", "machine", "onnxruntime", "threads")
_CPUINFO = Path("/proc/cpuinfo")
_CPU = Path("/sys/devices/system/cpu/cpu0")
_FIRMWARE = Path("/sys/firmware/dmi/tables/DMI")
_MOST_FIRMWARE_BYTES = 1_000_000
_MEMORY_DEVICE, _CONFIGURED_SPEED = 17, 0x20  # of the SMBIOS specification (DMTF DSP0134): a structure, a word in it
_CACHE_KINDS = {"Data": "d", "Instruction": "i"}
# The instructions that kernels of neural networks are written with.
_INSTRUCTIONS = re.compile(r"(avx|amx|fma|f16c|sse4|ssse3|gfni|asimd|sve|sme|i8mm|bf16|neon|vfp|fphp)\w*")
# What x86 and arm64 call the same thing in /proc/cpuinfo.
_NAMES = {
    "cpu": ("model name", "Hardware"),
    "family": ("cpu family", "CPU implementer"),
    "model": ("model", "CPU part"),
    "stepping": ("stepping", "CPU revision"),
    "flags": ("flags", "Features"),
}


def conditions(threads: int) -> dict[str, str]:
    """What a time measured here depends on; what this machine does not state is left out.

    ``cpu``, its ``family``, ``model`` and ``stepping``, which say more than its name, the ``flags`` of its
    instructions for vectors, ``caches``, ``machine``, the version of ``onnxruntime``, ``threads``, and the
    :data:`CLOCKS`.

    >>> {"cpu", "machine", "onnxruntime", "threads"} <= set(conditions(1))
    True
    """
    return {**_conditions(), "threads": str(threads)}


def matches_this_machine(stated: Mapping[str, str], threads: int) -> bool:
    """Whether numbers that were taken under the stated conditions are of this machine and this runtime.

    >>> matches_this_machine(conditions(1), 1), matches_this_machine({**conditions(1), "stepping": "another"}, 1)
    (True, False)
    """
    return not differing_conditions(stated, threads)


def differing_conditions(stated: Mapping[str, str], threads: int) -> tuple[str, ...]:
    """The conditions that are not stated as they are here.

    >>> differing_conditions({**conditions(1), "cpu": "another"}, 2)
    ('cpu', 'threads')
    """
    here = conditions(threads)
    return tuple(name for name in _COMPARED if stated.get(name) != here.get(name))


def kind_of_machine(more: bytes = b"") -> str:
    """Twelve digits that are the same on machines under the same conditions, with ``more`` among them.

    >>> kind_of_machine() == kind_of_machine() != kind_of_machine(b"more")
    True
    """
    compared = sorted((name, value) for name, value in _conditions().items() if name in _COMPARED)
    return hashlib.sha256(repr(compared).encode() + more).hexdigest()[:12]


@cache
def _conditions() -> Mapping[str, str]:
    import onnxruntime

    found = {
        **_cpu_facts(_CPUINFO.read_text(errors="replace") if _CPUINFO.is_file() else ""),
        "caches": ", ".join(_caches(_CPU / "cache")),
        "machine": platform.machine(),
        "onnxruntime": onnxruntime.__version__,
        "clock_mhz": _clock_mhz(_CPU / "cpufreq" / "cpuinfo_max_freq"),
        "memory_mt_per_s": _memory_speed(_FIRMWARE),
    }
    found.setdefault("cpu", platform.processor() or platform.machine())
    return {name: value for name, value in found.items() if value}


def _cpu_facts(cpuinfo: str) -> dict[str, str]:
    """Of the first processor in the text of /proc/cpuinfo."""
    stated: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        stated.setdefault(name.strip(), value.strip())
    facts = {
        name: next(stated[each] for each in names if each in stated)
        for name, names in _NAMES.items()
        if any(each in stated for each in names)
    }
    if "flags" in facts:
        facts["flags"] = " ".join(sorted(word for word in facts["flags"].split() if _INSTRUCTIONS.fullmatch(word)))
    return facts


def _caches(folder: Path) -> Iterator[str]:
    """Such as ``L1d 48K``, of the caches of one core."""
    for cache_folder in sorted(folder.glob("index*")):
        level, kind, size = (_text(cache_folder / name) for name in ("level", "type", "size"))
        if level and size:
            yield f"L{level}{_CACHE_KINDS.get(kind, '')} {size}"


def _clock_mhz(file: Path) -> str:
    kilohertz = _text(file)
    return str(int(kilohertz) // 1000) if kilohertz.isdecimal() else ""


def _memory_speed(table: Path) -> str:
    """Million transfers a second that the firmware states, which only root may read; else nothing."""
    try:
        with table.open("rb") as file:
            data = file.read(_MOST_FIRMWARE_BYTES)
    except OSError:
        return ""
    at, speeds = 0, set[int]()
    while at + 4 <= len(data) and data[at + 1] >= 4:
        kind, length = data[at], data[at + 1]
        if kind == _MEMORY_DEVICE and length >= _CONFIGURED_SPEED + 2:
            speeds.add(int.from_bytes(data[at + _CONFIGURED_SPEED : at + _CONFIGURED_SPEED + 2], "little"))
        end = data.find(b"\0\0", at + length)
        if end < 0:
            break
        at = end + 2
    return ", ".join(str(speed) for speed in sorted(speeds - {0, 0xFFFF}))


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
