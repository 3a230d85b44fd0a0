"""Verification of a generated program: it is built, run, and compared with the reference and with ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from compress.atomic_files import write_text
from compress.c99.instruction_counts import tick_table
from compress.c99.layers import Integers, Network, ProgramLayer, Tensor
from compress.c99.network_reader import read_network
from compress.c99.numpy_reference import quantize_images, run_layers
from compress.c99.program_readme import readme
from compress.c99.target_machines import MACHINES, Machine, Sizes, build, run, sizes
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean

_CHANCE = 0.01  # of the images: what a few close calls among few images may add


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One machine. Of ``values`` numbers that the layers made of the reference's own inputs, ``exact`` are the
    reference's, and the worst is ``largest`` steps off; of ``images`` outputs ``equal`` are the reference's.

    ``stack_bytes`` and ``ticks`` (of 25 MHz, one number a layer) are 0 and empty where they are not counted.
    """

    machine: str
    values: int
    exact: int
    largest: int
    images: int
    equal: int
    sizes: Sizes
    stack_bytes: int
    ticks: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What was found. ``disagreement`` is the share of images that the program puts into another class than ONNX
    Runtime's unoptimised graph does, ``runtime_disagreement`` that of ONNX Runtime's optimised graph.

    ``verified`` holds only if ``problems`` is empty; ``skipped`` names the machines that were not available.
    """

    machines: tuple[Measured, ...]
    disagreement: float
    runtime_disagreement: float
    problems: tuple[str, ...]
    skipped: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """Whether everything was run and held."""
        return not self.problems


def verify(
    out: Path,
    file: Path,
    images: NDArray[np.float32],
    *,
    machines: Sequence[str | Machine] = tuple(MACHINES),
    layer_images: int = 2,
    emulated_images: int = 2,
) -> Verification:
    """Build the program in ``out`` and run it beside the reference and ONNX Runtime; ``README.md`` tells the result,
    and how many instructions each layer takes on the emulated processors.

    Each layer must be within one step of the reference, given the reference's inputs; whole images must come out as
    the reference's; the arena must be the planned one; and the classes must differ from ONNX Runtime's unoptimised
    graph no more often than its optimised graph's do, or in one image of a hundred.

    Args:
        out: a folder that :func:`compress.c99.write_c99` wrote.
        file: the ONNX file that it was written from.
        images: network inputs (N, C, H, W).
        machines: of ``host``, ``cortex-m4`` and ``cortex-m7``, or machines; one whose compiler or emulator is missing
            is skipped, but without ``host`` nothing is verified.
        layer_images: so many images go through the layers one by one.
        emulated_images: so many go through an emulated processor.

    Raises:
        InputError: no image, or a machine that is not known.
    """
    chosen = [machine if isinstance(machine, Machine) else _machine(machine) for machine in machines]
    if not len(images):
        raise InputError("images must hold at least one, got none")
    network = read_network(file)
    case = _Case(network=network, folder=out, images=images, layer_images=layer_images, emulated=emulated_images)
    found, problems, skipped = case.on(chosen)
    expected = _classes(file, images, optimised=False)
    own = float(np.mean(_classes(file, images, optimised=True) != expected))
    ours = float(np.mean(case.classes() != expected))
    if ours > max(own, _CHANCE):
        problems.append(f"{ours:.1%} of the images get another class than in ONNX Runtime, {own:.1%} in itself")
    result = Verification(
        machines=tuple(found),
        disagreement=ours,
        runtime_disagreement=own,
        problems=tuple(problems),
        skipped=tuple(skipped),
    )
    table = tick_table([layer.name for layer in network.layers], {m.machine: m.ticks for m in found})
    write_text(out / "README.md", readme(network, file.name, "\n\n".join(filter(None, (summary(result), table)))))
    return result


def summary(result: Verification) -> str:
    """A few lines for a person.

    >>> empty = Verification(machines=(), disagreement=0, runtime_disagreement=0, problems=("no cc",), skipped=())
    >>> print(summary(empty))
    This program is **unverified**: no cc.
    """
    lines = ["This program is **verified**."]
    if result.problems:
        lines = [f"This program is **unverified**: {'; '.join(result.problems)}."]
    for m in result.machines:
        stack = f", {m.stack_bytes} bytes of stack" if m.stack_bytes else ""
        lines.append(
            f"- {m.machine}: {m.exact} of {m.values} values of single layers equal the reference's, the largest "
            f"difference is {m.largest}; {m.equal} of {m.images} images equal it. {m.sizes.code} bytes of code, "
            f"{m.sizes.constants} of constants, {m.sizes.zeros} of arena{stack}."
        )
    if result.machines:
        lines.append(
            f"- Of the images {result.disagreement:.2%} get another class than in ONNX Runtime without optimisation, "
            f"{result.runtime_disagreement:.2%} do so in ONNX Runtime itself with it."
        )
    return "\n".join([*lines, *(f"- Not run on {text}." for text in result.skipped)])


class _Case:
    def __init__(
        self, *, network: Network, folder: Path, images: NDArray[np.float32], layer_images: int, emulated: int
    ) -> None:
        self.network = network
        self.folder = folder.resolve()
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

    def classes(self) -> NDArray[np.int64]:
        output = self.network.output.name
        return np.array([int(tensors[output].reshape(-1).argmax()) for tensors in self.tensors])

    def measure(self, machine: Machine) -> Measured:
        images = self.emulated if machine.board else len(self.inputs)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            write_text(folder / "verify.h", _blocks(self.network, self.layer_images, images))
            (folder / "inputs.bin").write_bytes(self._stored(images))
            size = sizes(machine, self.folder, folder)
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
        return Measured(
            machine=machine.name,
            values=values.size,
            exact=int((off == 0).sum()),
            largest=int(off.max()),
            images=images,
            equal=int(equal.sum()),
            sizes=size,
            stack_bytes=max((int(words[1]) for words in told if words[0] == "stack"), default=0),
            ticks=tuple(int(words[2]) for words in told if words[0] == "ticks"),
        )


def _machine(name: str) -> Machine:
    if name not in MACHINES:
        raise InputError(f"machine must be one of {', '.join(MACHINES)}, got {name!r}{did_you_mean(name, MACHINES)}")
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


def _classes(file: Path, images: NDArray[np.float32], *, optimised: bool) -> NDArray[np.int64]:
    options = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    session = ort.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [session.run(None, {name: images[i : i + 1]})[0] for i in range(len(images))]
    return np.array([int(output.reshape(-1).argmax()) for output in outputs])
