"""The kit for boards: a C99 project that times networks of ours and prints the times as JSON."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compress.atomic_files import write_text
from compress.c99.layers import Network
from compress.c99.network_reader import read_network
from compress.c99.writer import piece, sources
from hw_profiles.device_kit.kit_networks import board_names, kit_digest, kit_file
from hw_profiles.errors import InputError

_OWN_ARENA = "static int8_t arena[MODEL_ARENA_BYTES];"
_SHARED_ARENA = "extern int8_t kit_arena[];\n#define arena kit_arena"
_OWN_SIZE, _SHARED_SIZE = "sizeof arena", "MODEL_ARENA_BYTES"
_FUNCTION = re.compile(r"^(?!static)[\w ]+?\b\*?((?:kernel|model)_\w+)\(", re.MULTILINE)
_COPIED = ("board.h", "board_port.c", "board_main.c")
_README = """\
# Networks that tell how fast a board is

{count} int8 networks as C99; the largest needs {arena:,} bytes of RAM, and all constants together take {flash:,}
bytes of flash. Nothing but `printf`, `stdint.h` and `string.h` is used.

1. Write `board_start` and `board_microseconds` in `board_port.c` for your board; on a PC they are there.
2. Add all `.c` files of this folder (not those of its folders) to your project, build with `-O3` or as you build what
   you ship, and `-std=c99 -ffp-contract=off`.
3. Run it, and save what it prints on the serial port as `result.json`.
4. `nas devices calibrate --base stm32f746 --runtime c99 --from result.json --out my_board.toml`, with the device that
   is most like your board as the base.

Where the flash is too small for all networks, leave out `network_*.c` files and their lines in `networks.h`.
"""


@dataclass(frozen=True, slots=True)
class _Program:
    name: str
    network: Network
    texts: dict[str, str]


def write_board_kit(out: Path) -> tuple[Path, ...]:
    """Write the project into a new or empty folder; the files.

    Raises:
        InputError: the folder is a file or holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} already exists and is not an empty folder; choose another")
    programs = [_program(name) for name in board_names()]
    texts = {name: piece(name) for name in _COPIED}
    texts |= {"Makefile": piece("board.mk"), "networks.h": _header(programs), "README.md": _readme(programs)}
    for program in programs:
        prefix = _prefix(program.name)
        texts[f"{prefix}.c"] = _unit(program)
        texts |= {f"{prefix}/{name}": text for name, text in program.texts.items()}
    for name, text in texts.items():
        write_text(out / name, text)
    return tuple(out / name for name in texts)


def _program(name: str) -> _Program:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{name}.onnx")
        file.write_bytes(kit_file(name, "int8"))
        network = read_network(file)
    texts = {each: text for each, text in sources(network).items() if each not in ("main.c", "Makefile")}
    model = texts["model.c"]
    assert _OWN_ARENA in model
    assert _OWN_SIZE in model
    texts["model.c"] = model.replace(_OWN_SIZE, _SHARED_SIZE).replace(_OWN_ARENA, _SHARED_ARENA)
    return _Program(name, network, texts)


def _unit(program: _Program) -> str:
    """One file to compile: the network and its kernels under names of their own, as several are linked together."""
    prefix = _prefix(program.name)
    declared = program.texts["model.h"] + program.texts["kernels.h"] + program.texts["kernels.c"]
    names = dict.fromkeys(_FUNCTION.findall(declared))
    renamed = "\n".join(f"#define {name} {prefix}_{name}" for name in names)
    return f'{renamed}\n\n#include "{prefix}/model.c"\n#include "{prefix}/kernels.c"\n'


def _header(programs: list[_Program]) -> str:
    """The table of the networks, and the sizes that all of them share."""
    tensors = [program.network for program in programs]
    declared, rows = [], []
    for program in programs:
        prefix = _prefix(program.name)
        declared += [
            f"void {prefix}_model_init(void);", f"void {prefix}_model_run(const int8_t *in, int8_t *out);"
        ]  # fmt: skip
        rows.append(f'    {{ "{program.name}", {prefix}_model_init, {prefix}_model_run }},')
    lines = [
        "#ifndef NETWORKS_H", "#define NETWORKS_H", "", "#include <stdint.h>", "",
        f'#define KIT_DIGEST "{kit_digest()}"',
        f"#define KIT_ARENA_BYTES {max(each.arena_bytes for each in tensors)}",
        f"#define KIT_INPUT_BYTES {max(each.input.size for each in tensors)}",
        f"#define KIT_OUTPUT_BYTES {max(each.output.size for each in tensors)}", "",
        "typedef struct {", "    const char *name;", "    void (*init)(void);",
        "    void (*run)(const int8_t *in, int8_t *out);", "} KitNetwork;", "", *declared, "",
        "static const KitNetwork kit_networks[] = {", *rows, "};",
        "#define KIT_NETWORKS ((int32_t)(sizeof kit_networks / sizeof kit_networks[0]))", "", "#endif", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _readme(programs: list[_Program]) -> str:
    arena = max(program.network.arena_bytes for program in programs)
    return _README.format(count=len(programs), arena=arena, flash=sum(_constants(each) for each in programs))


def _constants(program: _Program) -> int:
    """About the bytes of the constants: a number and its comma in the text are one byte of int8."""
    return program.texts["model.c"].count(",")


def _prefix(name: str) -> str:
    return name.replace("-", "_")
