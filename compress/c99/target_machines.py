"""The machines on which a program is built and run for verification: this one, and Arm processors under QEMU."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from compress.atomic_files import write_text
from hw_profiles.errors import InputError

STRICT = ("-std=c99", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-pedantic")
_ARM_FLAGS = ("-mthumb", "-Os")
_HARD_FLOAT = "-mfloat-abi=hard"
_PATIENCE = 1800  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class BoardMemory:
    """Where a board of QEMU has memory, as (address, length) of a linker script: for code, constants, and data."""

    code: tuple[str, str] = ("0x00000000", "1M")
    constants: tuple[str, str] = ("0x00100000", "3M")
    data: tuple[str, str] = ("0x20000000", "4M")

    @property
    def flash_bytes(self) -> int:
        """Room for code and constants."""
        return _in_bytes(self.code[1]) + _in_bytes(self.constants[1])

    @property
    def ram_bytes(self) -> int:
        """Room for data."""
        return _in_bytes(self.data[1])

    def script(self, template: str) -> str:
        """The linker script, of which ``template`` leaves these open."""
        for name, (origin, length) in (("CODE", self.code), ("CONSTANTS", self.constants), ("DATA", self.data)):
            template = template.replace(f"@{name}@", f"ORIGIN = {origin}, LENGTH = {length}")
        return template


def _in_bytes(length: str) -> int:
    return int(length[:-1]) * {"K": 1024, "M": 1024**2}[length[-1]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A compiler with its flags, and the board that QEMU shows, or none for this machine.

    ``clock_mhz`` is that of the board's timer; QEMU is told to run one instruction a nanosecond.

    >>> MACHINES["cortex-m7"].board, MACHINES["cortex-m7"].instructions_per_tick
    ('mps2-an500', 40.0)
    """

    name: str
    compiler: str
    size: str
    flags: tuple[str, ...]
    board: str = ""
    clock_mhz: float = 25.0
    memory: BoardMemory = field(default_factory=BoardMemory)

    @property
    def instructions_per_tick(self) -> float:
        """Instructions that are run under emulation in one tick of the timer."""
        return 1000 / self.clock_mhz

    def missing(self) -> str:
        """What must be installed, or nothing."""
        programs = [self.compiler, self.size, *(["qemu-system-arm"] if self.board else [])]
        absent = [program for program in programs if shutil.which(program) is None]
        if not absent:
            return ""
        packages = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm" if self.board else "gcc binutils"
        return f"{self.name}: {', '.join(absent)} not found; install {packages} (Debian's names)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Bytes of model.c and kernels.c: instructions, constants, and what is zero at the start (the arena)."""

    code: int
    constants: int
    zeros: int


def _arm(name: str, board: str, *cpu: str, clock_mhz: float = 25.0, memory: BoardMemory | None = None) -> Machine:
    prefix, flags = "arm-none-eabi-", (f"-mcpu={name}", *cpu, *_ARM_FLAGS)
    return Machine(
        name=name, compiler=f"{prefix}gcc", size=f"{prefix}size", flags=flags, board=board, clock_mhz=clock_mhz,
        memory=memory or BoardMemory(),
    )  # fmt: skip


_M33_MEMORY = BoardMemory(
    code=("0x10000000", "1M"), constants=("0x10100000", "3M"), data=("0x38000000", "4M")
)  # what the secure state sees
_M55_MEMORY = BoardMemory(
    code=("0x00000000", "512K"), constants=("0x60000000", "16M"), data=("0x61000000", "16M")
)  # fmt: skip

MACHINES: Mapping[str, Machine] = {
    "host": Machine(name="host", compiler=os.environ.get("CC", "cc"), size="size", flags=("-O3",)),
    # QEMU has no Cortex-M0+; its Cortex-M3 runs all instructions of ARMv6-M.
    "cortex-m0plus": _arm("cortex-m0plus", "mps2-an385", "-mfloat-abi=soft"),
    "cortex-m4": _arm("cortex-m4", "mps2-an386", "-mfpu=fpv4-sp-d16", _HARD_FLOAT),
    "cortex-m7": _arm("cortex-m7", "mps2-an500", "-mfpu=fpv5-d16", _HARD_FLOAT),
    "cortex-m33": _arm(
        "cortex-m33", "mps2-an505", "-mfpu=fpv5-sp-d16", _HARD_FLOAT, clock_mhz=20.0, memory=_M33_MEMORY
    ),
    "cortex-m55": _arm("cortex-m55", "mps3-an547", _HARD_FLOAT, clock_mhz=32.0, memory=_M55_MEMORY),
}
USUAL_MACHINES = ("host", "cortex-m4", "cortex-m7")
"""Where a program is verified unless a machine is named."""


def build(machine: Machine, folder: Path, program: Path, build_folder: Path) -> Path:
    """Compile the verification program of ``build_folder`` with the model of ``folder``, after :func:`sizes`.

    Raises:
        InputError: the compiler fails; the message has its first lines.
    """
    for name in ("verify.c", *(("arm_startup.c", "arm_counters.h", "arm.ld") if machine.board else ())):
        source = files("compress.c99").joinpath("sources", name).read_text(encoding="utf-8")
        write_text(build_folder / name, machine.memory.script(source) if name == "arm.ld" else source)
    sources = [str(build_folder / "verify.c"), str(build_folder / f"{machine.name}_kernels.o")]
    extra: list[str] = []
    if machine.board:
        sources.append(str(build_folder / "arm_startup.c"))
        extra = ["-nostartfiles", "--specs=rdimon.specs", "-T", str(build_folder / "arm.ld")]
    include = [f"-I{build_folder}", f"-I{folder}"]
    _call([machine.compiler, *STRICT, *machine.flags, *include, "-o", str(program), *sources, *extra], build_folder)
    return program


def run(machine: Machine, program: Path, folder: Path) -> str:
    """What the program prints; it reads and writes files in ``folder``."""
    if not machine.board:
        return _call([str(program)], folder)
    target = "enable=on,target=native"
    options = ["-nographic", "-monitor", "none", "-serial", "none", "-semihosting-config", target, "-icount", "shift=0"]
    return _call(["qemu-system-arm", "-M", machine.board, *options, "-kernel", str(program)], folder)


def sizes(machine: Machine, folder: Path, build_folder: Path) -> Sizes:
    """The sections of the two files as the compiler makes them."""
    totals = {"code": 0, "constants": 0, "zeros": 0}
    for name in ("model", "kernels"):
        made = build_folder / f"{machine.name}_{name}.o"
        _call(
            [machine.compiler, *STRICT, *machine.flags, "-c", "-o", str(made), str(folder / f"{name}.c")], build_folder
        )
        for line in _call([machine.size, "-A", str(made)], build_folder).splitlines():
            section, *numbers = line.split() or [""]
            kind = _section(section)
            if kind and numbers:
                totals[kind] += int(numbers[0])
    return Sizes(**totals)


def _section(name: str) -> str:
    for start, kind in ((".text", "code"), (".rodata", "constants"), (".data", "constants"), (".bss", "zeros")):
        if name.startswith(start):
            return kind
    return ""


def _call(command: Sequence[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except OSError as error:
        raise InputError(f"{command[0]}: cannot be started ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{command[0]}: timed out after {_PATIENCE} seconds") from None
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()
        raise InputError(f"{Path(command[0]).name}: failed ({done.returncode}): {' / '.join(told[:3])}")
    return done.stdout
