"""What is installed and free on this machine, found without any computation: for ``nas doctor``."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from compress.c99.target_machines import MACHINES
from hw_profiles.user_folders import cache_folder
from nas.execution.memory_limits import available_bytes

_EXTRAS = {
    "pretrained": "--init with EfficientNet-Lite0 weights that need no download",
    "huggingface": "--data with a Hugging Face dataset saved with save_to_disk",
    "ray": "--executor ray",
    "postgres": "--storage postgresql://",
    "mysql": "--storage mysql://",
    "grpc": "--storage grpc://",
    "dashboard": "optuna-dashboard, which shows a search while it runs",
}
_COMPILERS = {
    "host": ("C compiler", "`nas export --verify`, which compiles and runs the C program"),
    "cortex-m7": (
        "Arm compiler and QEMU",
        "`nas export --verify` on an emulated Cortex-M4 and M7",
    ),
}
_LEAST_DISK, _LEAST_MEMORY = 2e9, 2e9


class State(StrEnum):
    """Of one check: ``FAILED`` where a run cannot work."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One line of ``nas doctor``: what was found and, where something is missing, what that means and what to do."""

    name: str
    state: State
    found: str
    advice: str = ""


def installation_checks(folder: Path) -> list[Check]:
    """Versions, required and optional packages, compilers, free disk under ``folder`` and free memory."""
    return [
        Check(
            name="fitnas",
            state=State.OK,
            found=f"{version('fitnas')}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        ),
        _packages(),
        *map(_extra, _EXTRAS),
        *map(_compiler, _COMPILERS),
        _disk(folder),
        _memory(),
        _cache(),
    ]


def _packages() -> Check:
    """The required packages and their versions."""
    needed = [each for each in _requirements() if _applies(each, "")]
    wrong = [fault for each in needed if (fault := _fault(each))]
    if wrong:
        return Check(
            name="required packages", state=State.FAILED, found="; ".join(wrong),
            advice="reinstall fitnas in a virtual environment of its own: pip install .",
        )  # fmt: skip
    return Check(name="required packages", state=State.OK, found=f"{len(needed)} installed")


def _fault(wanted: Requirement) -> str:
    """What is wrong with a package, or nothing."""
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is not installed"
    fits = wanted.specifier.contains(found, prereleases=True)
    return "" if fits else f"{wanted.name} must be {wanted.specifier}, got {found}"


def _extra(name: str) -> Check:
    """The packages of an optional extra."""
    needed = [each for each in _requirements() if _applies(each, name) and not _applies(each, "")]
    wrong = [fault for each in needed if (fault := _fault(each))]
    purpose = f"needed only for {_EXTRAS[name]}"
    if not needed:
        return Check(
            name=f"extra {name}",
            state=State.MISSING,
            found="not defined by the installed fitnas version; reinstall it",
            advice=purpose,
        )
    if wrong:
        return Check(
            name=f"extra {name}", state=State.MISSING, found="; ".join(wrong),
            advice=f"{purpose}. To install it: pip install 'fitnas[{name}]'",
        )  # fmt: skip
    return Check(name=f"extra {name}", state=State.OK, found=", ".join(f"{n.name} {version(n.name)}" for n in needed))


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in requires("fitnas") or []]


def _applies(wanted: Requirement, extra: str) -> bool:
    """Whether a package is required with an extra; ``""`` is none."""
    return wanted.marker is None or wanted.marker.evaluate({"extra": extra})


def _compiler(machine: str) -> Check:
    name, purpose = _COMPILERS[machine]
    if missing := MACHINES[machine].missing():
        return Check(
            name=name, state=State.MISSING, found=missing.partition(": ")[2].partition(";")[0],
            advice=f"needed only for {purpose}. To get it: {missing.rpartition('; ')[2]}",
        )  # fmt: skip
    return Check(name=name, state=State.OK, found=MACHINES[machine].compiler)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    advice = "image caches and run folders can take more: free some, or use --out on another disk"
    return _free("free disk", free, _LEAST_DISK, f"{free / 1e9:.0f} GB in {folder.absolute()}", advice)


def _memory() -> Check:
    free = available_bytes()
    advice = "a training process takes 1 GB and more: close other programs, or use --workers 1"
    return _free("free memory", free, _LEAST_MEMORY, f"{free / 1e9:.1f} GB", advice)


def _free(name: str, free: float, least: float, found: str, advice: str) -> Check:
    if free < least:
        return Check(name=name, state=State.NOTE, found=f"{free / 1e9:.1f} GB", advice=advice)
    return Check(name=name, state=State.OK, found=found)


def _cache() -> Check:
    folder = cache_folder()
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        return Check(
            name="cache folder", state=State.FAILED, found=f"{nearest} cannot be written",
            advice="set XDG_CACHE_HOME to a writable folder",
        )  # fmt: skip
    return Check(name="cache folder", state=State.OK, found=str(folder))
