"""Verification of a generated program: it is built, run, and compared with the reference and with ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.atomic_files import write_text
from compress.c99.instruction_counts import instruction_table
from compress.c99.layers import Integers, Network, ProgramLayer, Tensor
from compress.c99.network_reader import read_network
from compress.c99.numpy_reference import quantize_images, run_layers
from compress.c99.program_readme import readme
from compress.c99.runtime_layers import RuntimeComparison, as_file_input, compared
from compress.c99.target_machines import MACHINES, USUAL_MACHINES, Machine, Sizes, build, run, sizes
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import check_one_of

_RANDOM_WORK = 2_000_000_000  # multiply-accumulates of all random inputs together
_RANDOM_INPUTS = (4, 100)
_BESIDE_PROGRAM = 128 * 1024  # bytes of the emulated board's memory that verifying takes itself, of each kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One machine. Of ``values`` numbers that the layers made of the reference's own inputs, ``exact`` are the
    reference's, and the worst is ``largest`` steps off; of ``images`` outputs ``equal`` are the reference's.

    ``stack_bytes`` and ``instructions`` (one number a layer, to the next 50, 0 where there were too many to count) are
    0 and empty where they are not counted.
    ``instructions_per_mac``: of the whole network, for each multiply-accumulate of its weights; None where it is not
    counted.
    """

    machine: str
    values: int
    exact: int
    largest: int
    images: int
    equal: int
    sizes: Sizes
    stack_bytes: int
    instructions: tuple[int, ...]
    instructions_per_mac: float | None = None

    @property
    def total_instructions(self) -> int | None:
        """Of one image; None where they were not counted, or a layer has too many."""
        return sum(self.instructions) if self.instructions and all(self.instructions) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What was found on each machine, and beside ONNX Runtime (None where nothing was run).

    ``random_inputs``: the images were random ones. ``verified`` holds only if ``problems`` is empty; ``skipped`` names
    the machines that were not available.
    """

    machines: tuple[Measured, ...]
    runtime: RuntimeComparison | None
    problems: tuple[str, ...]
    skipped: tuple[str, ...]
    random_inputs: bool = False

    @property
    def disagreement(self) -> float | None:
        """The share of images whose largest output is another one than in ONNX Runtime; None where nothing was run."""
        return None if self.runtime is None else self.runtime.disagreement

    @property
    def verified(self) -> bool:
        """Whether everything was run and held."""
        return not self.problems


def verify(
    out: Path | str,
    file: Path | str,
    images: NDArray[Any] | None = None,
    *,
    machines: Sequence[str | Machine] = USUAL_MACHINES,
    layer_images: int = 2,
    emulated_images: int = 2,
) -> Verification:
    """Build the program in ``out`` and run it beside the reference and ONNX Runtime; ``README.md`` tells the result,
    and how many instructions each layer takes on the emulated processors.

    Each layer must be within one step of the reference, given the reference's inputs, and the reference within one step
    of ONNX Runtime's nodes; whole images must come out as the reference's; the arena must be the planned one. Of whole
    images, either the largest output is another one than in ONNX Runtime's unoptimized graph no more often than in its
    optimized graph, or in one image of a hundred; or outputs differ by no more steps on average than its optimized
    graph's do, or by a twentieth of a step.

    Args:
        out: a folder that :func:`compress.c99.write_c99` wrote.
        file: the ONNX file that it was written from.
        images: network inputs as the file takes them, (N, C, H, W) or otherwise; None for random ones, each number
            drawn from the whole range that the input's scale covers, by a fixed seed.
        machines: names of :data:`compress.c99.target_machines.MACHINES`, or machines; one whose compiler or emulator is
            missing is skipped, but without ``host`` nothing is verified.
        layer_images: so many images go through the layers one by one.
        emulated_images: so many go through an emulated processor.

    Raises:
        InputError: no image, or a machine that is not known.
    """
    out, file = Path(out), Path(file)
    chosen = [machine if isinstance(machine, Machine) else _machine(machine) for machine in machines]
    network = read_network(file)
    given = random_inputs(network) if images is None else images
    if not len(given):
        raise InputError("images is empty, at least one is required")
    case = _Case(network=network, folder=out, images=given, layer_images=layer_images, emulated=emulated_images)
    found, problems, skipped = case.on(chosen)
    runtime = case.beside_runtime(file) if found else None
    result = Verification(
        machines=tuple(found),
        runtime=runtime,
        problems=(*problems, *(() if runtime is None else runtime.problems())),
        skipped=tuple(skipped),
        random_inputs=images is None,
    )
    table = instruction_table([layer.name for layer in network.layers], {m.machine: m.instructions for m in found})
    write_text(out / "README.md", readme(network, file.name, "\n\n".join(filter(None, (summary(result), table)))))
    return result


def summary(result: Verification) -> str:
    """A few lines for a person.

    >>> empty = Verification(machines=(), runtime=None, problems=("no cc",), skipped=())
    >>> print(summary(empty))
    This program is **unverified**: no cc.
    """
    lines = ["This program is **verified**."]
    if result.problems:
        lines = [f"This program is **unverified**: {'; '.join(result.problems)}."]
    for m in result.machines:
        stack = f", {m.stack_bytes} bytes of stack" if m.stack_bytes else ""
        per_mac = "" if m.instructions_per_mac is None else f", {m.instructions_per_mac:.2f} instructions per MAC"
        lines.append(
            f"- {m.machine}: {m.exact} of {m.values} values of single layers equal the reference's, the largest "
            f"difference is {m.largest}; {m.equal} of {m.images} images equal it. {m.sizes.code} bytes of code, "
            f"{m.sizes.constants} of constants, {m.sizes.zeros} of arena{stack}{per_mac}."
        )
    if result.runtime is not None:
        lines += [f"- {line}" for line in result.runtime.lines()]
    if result.random_inputs:
        lines.append(
            "- The images were random numbers over the whole range that the input's scale covers, from a fixed seed; "
            "pass --data to verify on images."
        )
    return "\n".join([*lines, *(f"- Not run on {text}." for text in result.skipped)])


def random_inputs(network: Network) -> NDArray[Any]:
    """Inputs as the file takes them, of numbers drawn evenly from all that the input's integers stand for."""
    least, most = _RANDOM_INPUTS
    count = min(max(_RANDOM_WORK // max(network.macs, 1), least), most)
    integers = np.random.default_rng(0).integers(-128, 128, (count, *network.input.shape)).astype(np.int8)
    return np.concatenate(as_file_input(network, integers))


class _TooLargeError(Exception):
    """The program does not fit the board."""


class _Case:
    def __init__(
        self, *, network: Network, folder: Path, images: NDArray[Any], layer_images: int, emulated: int
    ) -> None:
        self.network = network
        self.folder = folder.resolve()
        self.images = images
        self.inputs = quantize_images(network, images)
        self.layer_images = min(layer_images, len(images))
        self.emulated = min(emulated, len(images))
        self.tensors = [run_layers(network, image) for image in self.inputs]

    def on(self, machines: Sequence[Machine]) -> tuple[list[Measured], list[str], list[str]]:
        """What was measured, what is wrong, and which machines are not there."""
        found: list[Measured] = []
        problems: list[str] = []
        skipped: list[str] = []
        for machine in machines:
            missing = machine.missing()
            if missing:
                (skipped if machine.board else problems).append(missing)
                continue
            try:
                measured = self.measure(machine)
            except _TooLargeError as error:
                skipped.append(f"{machine.name}: {error}")
                continue
            except ValueError as error:
                problems.append(f"{machine.name}: {error}")
                continue
            found.append(measured)
            problems.extend(f"{machine.name}: {text}" for text in self.wrong(measured))
        if not found and not problems:
            problems.append("it was run nowhere")
        return found, problems, skipped

    def wrong(self, m: Measured) -> list[str]:
        arena = self.network.arena_bytes
        checks = {
            f"a layer is {m.largest} steps off": m.largest <= 1,
            f"{m.images - m.equal} of {m.images} images differ from the reference": m.equal == m.images,
            f"the arena is {m.sizes.zeros} bytes, planned are {arena}": m.sizes.zeros == arena,
        }
        return [text for text, good in checks.items() if not good]

    def beside_runtime(self, file: Path) -> RuntimeComparison:
        given = None if self.network.integer_ends[0] else self.images
        inputs = as_file_input(self.network, self.inputs) if given is None else [image[None] for image in given]
        return compared(self.network, file, inputs, self.tensors, layer_images=self.layer_images)

    def measure(self, machine: Machine) -> Measured:
        images = self.emulated if machine.board else len(self.inputs)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            write_text(folder / "verify.h", _blocks(self.network, self.layer_images, images))
            (folder / "inputs.bin").write_bytes(self._stored(images))
            size = sizes(machine, self.folder, folder)
            flash, ram = (room - _BESIDE_PROGRAM for room in (machine.memory.flash_bytes, machine.memory.ram_bytes))
            if machine.board and (size.code + size.constants > flash or size.zeros > ram):
                raise _TooLargeError(
                    f"the emulated board has {flash} bytes for code and constants, and {ram} for the arena; the "
                    f"program has {size.code + size.constants} and {size.zeros}"
                )
            program = build(machine, self.folder, folder / "program.elf", folder)
            printed = run(machine, program, folder)
            produced = np.frombuffer((folder / "outputs.bin").read_bytes(), np.int8)
            return self._compared(machine, produced, images, printed, size)

    def _stored(self, images: int) -> bytes:
        """The inputs of every layer for some images, then whole images."""
        parts = [
            tensors[t.name].tobytes()
            for tensors in self.tensors[: self.layer_images]
            for layer in self.network.layers
            for t in _distinct(layer)
        ]
        return b"".join([*parts, self.inputs[:images].tobytes()])

    def _compared(self, machine: Machine, produced: Integers, images: int, printed: str, size: Sizes) -> Measured:
        layers, output = self.network.layers, self.network.output
        expected = [t[layer.output.name].reshape(-1) for t in self.tensors[: self.layer_images] for layer in layers]
        values = np.concatenate(expected)
        if produced.size != values.size + images * output.size:
            raise InputError(
                f"the program must write {values.size + images * output.size} bytes, wrote {produced.size}"
            )
        off = np.abs(produced[: values.size].astype(np.int16) - values)
        whole = np.stack([t[output.name].reshape(-1) for t in self.tensors[:images]])
        equal = (produced[values.size :].reshape(images, output.size) == whole).all(axis=1)
        told = [line.split() for line in printed.splitlines()]
        instructions = tuple(
            round(machine.instructions_per_tick * int(words[2])) for words in told if words[0] == "ticks"
        )
        return Measured(
            machine=machine.name,
            values=values.size,
            exact=int((off == 0).sum()),
            largest=int(off.max()),
            images=images,
            equal=int(equal.sum()),
            sizes=size,
            stack_bytes=max((int(words[1]) for words in told if words[0] == "stack"), default=0),
            instructions=instructions,
            instructions_per_mac=self._per_mac(instructions),
        )

    def _per_mac(self, instructions: tuple[int, ...]) -> float | None:
        counted = len(instructions) == len(self.network.layers) and min(instructions) > 0 and self.network.macs
        return sum(instructions) / self.network.macs if counted else None


def _machine(name: str) -> Machine:
    check_one_of("machine", name, MACHINES)
    return MACHINES[name]


def _distinct(layer: ProgramLayer) -> list[Tensor]:
    return list({t.name: t for t in layer.inputs}.values())


def _blocks(network: Network, layer_images: int, images: int) -> str:
    """For each layer the number of inputs, offset and size of each, and of the output."""
    numbers: list[int] = []
    for layer in network.layers:
        places = dict(zip((t.name for t in layer.inputs), layer.offsets, strict=True))
        inputs = _distinct(layer)
        numbers.append(len(inputs))
        numbers += [n for t in inputs for n in (places[t.name], t.size)]
        numbers += [layer.offset, layer.output.size]
    return (
        f"#define VERIFY_LAYER_RUNS {layer_images}\n#define VERIFY_IMAGES {images}\n"
        f"static const int32_t verify_blocks[] = {{{', '.join(map(str, numbers))}}};\n"
    )
