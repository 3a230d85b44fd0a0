"""The C99 program of a run for a microcontroller: written, verified, and its memory and latency."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.atomic_files import write_text
from compress.c99.target_machines import MACHINES
from compress.c99.verification import Measured, Verification, verify
from compress.c99.writer import Exported, write_c99
from hw_profiles.devices.c99_program import processor_of
from hw_profiles.devices.device import Device
from hw_profiles.latency.estimate import counted_latency

FOLDER = "c99"
IMAGES, _STORED, _EMULATED = 200, 8, 2  # test images that the host runs, that the folder holds, that are emulated
_HOST = "host"
_log = logging.getLogger("fitnas")


def c99_project(file: Path, folder: Path, images: NDArray[np.float32], device: Device) -> dict[str, Any]:
    """Write the int8 ``file`` as C99 into ``folder``, verify it here and on the emulated processor of ``device``, and
    say in JSON types what it takes: bytes as the compiler makes them, and the latency of the instructions counted.

    ``images`` are network inputs (N, C, H, W). Where there is no emulator of the processor, or a compiler is missing,
    ``verified_on`` and ``not_run`` say so, and what was not counted is None.
    """
    written = write_c99(file, folder, force=True, test_images=images[:_STORED])
    processor = processor_of(device)
    machines = [_HOST, *([processor] if processor in MACHINES else [])]
    found = verify(folder, file, images[:IMAGES], machines=machines, emulated_images=_EMULATED)
    for problem in found.problems:
        _log.warning("the C99 program is not verified: %s", problem)
    facts = _facts(written, found, device)
    _add_to_readme(folder / "README.md", facts, device)
    return facts


def _facts(written: Exported, found: Verification, device: Device) -> dict[str, Any]:
    processor = processor_of(device)
    emulated = next((each for each in found.machines if each.machine == processor), None)
    here = [each.machine for each in found.machines]
    missing = [] if processor in MACHINES else [f"{processor}: no emulator available"]
    return {
        "folder": FOLDER,
        "processor": processor,
        "verified": found.verified,
        "verified_on": here if found.verified else [],
        "problems": list(found.problems),
        "not_run": [*missing, *found.skipped],
        "arena_bytes": written.arena_bytes,
        "disagreement": found.disagreement,
        **(_as_compiled(emulated, written, device) if emulated else {}),
    }


def _as_compiled(emulated: Measured, written: Exported, device: Device) -> dict[str, Any]:
    instructions = emulated.total_instructions
    facts: dict[str, Any] = {
        "stack_bytes": emulated.stack_bytes,
        "code_bytes": emulated.sizes.code,
        "constant_bytes": emulated.sizes.constants,
        "peak_ram_bytes": written.arena_bytes + emulated.stack_bytes,
        "flash_bytes": emulated.sizes.code + emulated.sizes.constants,
        "instructions": instructions,
    }
    if instructions is None or "int8" in device.calibrated:
        return facts  # measured latencies of programs on the board say more than a count
    return {**facts, **counted_latency(instructions, device).facts()}


def measured_values(project: Mapping[str, Any]) -> dict[str, Any]:
    """What the program was found to take, in place of what the search expected.

    >>> measured_values({"verified": True, "flash_bytes": 9000, "folder": "c99"})
    {'flash_bytes': 9000, 'compiled': True}
    """
    names = ("peak_ram_bytes", "flash_bytes", "latency_ms", "latency_low_ms", "latency_high_ms")
    found = {name: project[name] for name in names if name in project}
    return {**found, "compiled": True} if found else {}


def verification_text(project: Mapping[str, Any]) -> str:
    """In one clause how sure the program is.

    >>> verification_text({"verified": True, "verified_on": ["host", "cortex-m7"], "folder": "c99", "not_run": []})
    'C99 program in c99/, verified on this machine and an emulated cortex-m7'
    """
    if not project["verified"]:
        return f"C99 program in {project['folder']}/, NOT verified: {'; '.join(project['problems'])}"
    places = ["this machine" if name == _HOST else f"an emulated {name}" for name in project["verified_on"]]
    not_run = f" (not run on {'; '.join(project['not_run'])})" if project["not_run"] else ""
    alone = " only" if places == ["this machine"] else ""
    return f"C99 program in {project['folder']}/, verified on {' and '.join(places)}{alone}{not_run}"


def _add_to_readme(path: Path, facts: Mapping[str, Any], device: Device) -> None:
    text = path.read_text(encoding="utf-8")
    write_text(path, f"{text}\n{_board_section(facts, device)}")


def _board_section(facts: Mapping[str, Any], device: Device) -> str:
    lines = [f"## On {device.name}", "", device.description.partition(", as ")[0] + ".", ""]
    if "flash_bytes" in facts:
        lines += [
            f"- RAM: {facts['peak_ram_bytes']:,} bytes, {facts['arena_bytes']:,} of the arena and "
            f"{facts['stack_bytes']:,} of the stack, excluding the input and output buffers, which you allocate.",
            f"- Flash: {facts['flash_bytes']:,} bytes, {facts['code_bytes']:,} of code and "
            f"{facts['constant_bytes']:,} of constants.",
        ]
    if "latency_ms" in facts:
        lines.append(
            f"- Latency: {facts['latency_ms']:.4g} ms (90% interval {facts['latency_low_ms']:.4g} to "
            f"{facts['latency_high_ms']:.4g}). This is an estimate: {facts['instructions']:,} instructions, counted "
            f"under emulation, at {device.facts['c99_cycles_per_instruction'].value} cycles each and "
            f"{device.facts['clock_mhz'].value:g} MHz. It has not been run on hardware."
        )
    elif "flash_bytes" in facts and "int8" in device.calibrated:
        lines.append("- Latency: in report.html, estimated from latencies that were measured on the board.")
    else:
        lines.append("- Latency, stack and bytes of code: not available: no emulator for this processor is installed.")
    return "\n".join(lines) + "\n"
