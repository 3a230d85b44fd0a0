"""Where a program is built and run for verification: this machine, and Arm processors under QEMU."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from compress.atomic_files import write_text
from hw_profiles.errors import InputError

STRICT = ("-std=c99", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-pedantic")
_ARM_FLAGS = ("-mthumb", "-mfloat-abi=hard", "-Os")
_PATIENCE = 1800  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A compiler with its flags, and the board that QEMU shows, or none for this machine.

    >>> MACHINES["cortex-m7"].board
    'mps2-an500'
    """

    name: str
    compiler: str
    size: str
    flags: tuple[str, ...]
    board: str = ""

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


def _arm(name: str, board: str, *cpu: str) -> Machine:
    prefix = "arm-none-eabi-"
    return Machine(name=name, compiler=f"{prefix}gcc", size=f"{prefix}size", flags=(*cpu, *_ARM_FLAGS), board=board)


MACHINES: Mapping[str, Machine] = {
    "host": Machine(name="host", compiler=os.environ.get("CC", "cc"), size="size", flags=("-O3",)),
    "cortex-m4": _arm("cortex-m4", "mps2-an386", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16"),
    "cortex-m7": _arm("cortex-m7", "mps2-an500", "-mcpu=cortex-m7", "-mfpu=fpv5-d16"),
}


def build(machine: Machine, folder: Path, program: Path, build_folder: Path) -> Path:
    """Compile the verification program of ``build_folder`` with the model of ``folder``, after :func:`sizes`.

    Raises:
        InputError: the compiler fails; the message has its first lines.
    """
    for name in ("verify.c", *(("arm_startup.c", "arm_counters.h", "arm.ld") if machine.board else ())):
        source = files("compress.c99").joinpath("sources", name).read_text(encoding="utf-8")
        write_text(build_folder / name, source)
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
        raise InputError(f"{command[0]}: did not end within {_PATIENCE} seconds") from None
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()
        raise InputError(f"{Path(command[0]).name}: failed ({done.returncode}): {' / '.join(told[:3])}")
    return done.stdout
