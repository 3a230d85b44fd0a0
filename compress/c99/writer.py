"""The folder of a C99 program: model, kernels, test vectors, Makefile and README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.atomic_files import write_text
from compress.c99.c_literals import initializer, label, number, string, wrapped
from compress.c99.kernel_calls import Call, calls, row_lengths, with_shared_arrays
from compress.c99.layers import Integers, Network
from compress.c99.network_reader import read_network
from compress.c99.numpy_reference import quantize_images, run_layers
from compress.c99.program_readme import readme
from compress.c99.stack_buffers import buffers
from hw_profiles.errors import InputError

_RANDOM_VECTORS = 2

# For each kernel: its declarations and its code, each after what it needs.
_DECLARATIONS = {
    "conv": ("dsp", "output", "conv"),
    "depthwise": ("dsp", "output", "window", "depthwise"),
    "average_pool": ("output", "window", "average_pool"),
    "max_pool": ("window", "max_pool"),
    "add": ("output", "binary", "add"),
    "mul": ("output", "binary", "mul"),
    "table": ("table",),
    "tables": ("tables",),
    "move": ("move",),
    "lines": ("output", "lines"),
    "mean_of": ("output", "window", "mean_of"),
    "softmax": ("output", "softmax"),
    "softmax_of": ("output", "softmax_of"),
    "product": ("output", "product"),
    "normalize": ("output", "normalize"),
    "resize": ("output", "resize"),
}
_CODE = {
    "conv": ("smaller", "rounded", "limits", "dsp", "requantize", "patch", "conv_portable", "conv_dsp", "conv"),
    "depthwise": ("smaller", "rounded", "limits", "dsp", "requantize", "window", "depthwise", "depthwise_dsp"),
    "average_pool": ("smaller", "rounded", "limits", "window", "average_pool"),
    "max_pool": ("smaller", "window", "max_pool"),
    "add": ("smaller", "rounded", "limits", "binary", "add"),
    "mul": ("smaller", "rounded", "limits", "binary", "mul"),
    "table": ("table",),
    "tables": ("tables",),
    "move": ("move",),
    "lines": ("rounded", "limits", "lines"),
    "mean_of": ("smaller", "rounded", "limits", "window", "mean_of"),
    "softmax": ("rounded", "limits", "softmax"),
    "softmax_of": ("rounded", "limits", "softmax_of"),
    "product": ("rounded", "limits", "product"),
    "normalize": ("rounded", "limits", "normalize"),
    "resize": ("rounded", "limits", "resize"),
}
_PIECES = (
    "smaller", "rounded", "limits", "dsp", "requantize", "output", "window", "binary", "patch", "conv_portable",
    "conv_dsp", "depthwise_dsp",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A program that was written: its folder and files, and bytes of the arena and of the largest buffers on the stack.

    Nothing is known of it until :func:`compress.c99.verification.verify` has run it.
    """

    folder: Path
    files: tuple[Path, ...]
    arena_bytes: int
    buffer_bytes: int


def write_c99(
    file: Path | str, out: Path | str, *, force: bool = False, test_images: NDArray[Any] | None = None
) -> Exported:
    """Write an int8 ONNX file (QDQ) as C99 that needs no heap and no library but ``stdint.h`` and ``string.h``.

    Args:
        file: 8-bit activations and weights between QuantizeLinear and DequantizeLinear.
        out: output folder (created if needed); see the generated ``README.md``.
        force: write into a folder that is not empty; other files are left untouched.
        test_images: network inputs (N, C, H, W) that are stored with the outputs they must give; random ones otherwise.

    Raises:
        InputError: an operation or a format that is not known, before anything is written; or the folder is not empty,
            or a file.

    >>> import tempfile
    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from hw_profiles.network.quantization import fixed_quantization
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "model.onnx")
    ...     _ = path.write_bytes(write_onnx(w, quantization=fixed_quantization(w)))
    ...     sorted(f.name for f in write_c99(path, Path(folder, "c")).files)  # doctest: +NORMALIZE_WHITESPACE
    ['Makefile', 'README.md', 'kernels.c', 'kernels.h', 'main.c', 'model.c', 'model.h', 'test_vectors.h']
    """
    file, out = Path(file), Path(out)
    network = read_network(file)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, expected a folder; choose another")
    if out.exists() and any(out.iterdir()) and not force:
        raise InputError(f"{out} already exists and is not empty; choose another folder or use --force")
    images = _test_inputs(network, test_images)
    texts = sources(network)
    texts["test_vectors.h"] = _test_vectors(network, images)
    texts["README.md"] = readme(network, file.name)
    for name, text in texts.items():
        write_text(out / name, text)
    return Exported(
        folder=out,
        files=tuple(out / name for name in texts),
        arena_bytes=network.arena_bytes,
        buffer_bytes=buffers(network.layers).largest_bytes,
    )


def sources(network: Network) -> dict[str, str]:
    """The files of a program by name, without test vectors and README."""
    lengths = row_lengths(network.layers)
    found = [calls(layer, i, length) for i, (layer, length) in enumerate(zip(network.layers, lengths, strict=True))]
    used = list(dict.fromkeys(call.kernel for layer in found for call in layer))
    return {
        "model.h": _header(network),
        "model.c": _model(network, found),
        "kernels.h": _kernels_header(network, used),
        "kernels.c": _kernels(used),
        "main.c": piece("main.c"),
        "Makefile": piece("Makefile"),
    }


def _header(network: Network) -> str:
    height, width, channels = network.input.shape
    source, output = network.input.quantization, network.output.quantization
    record = network.preprocessing
    lines = [
        f"#define MODEL_INPUT_HEIGHT {height}",
        f"#define MODEL_INPUT_WIDTH {width}",
        f"#define MODEL_INPUT_CHANNELS {channels}",
        f"#define MODEL_INPUT_BYTES {network.input.size}",
        f"#define MODEL_INPUT_SCALE {number(source.scale)}",
        f"#define MODEL_INPUT_ZERO_POINT ({source.zero_point})",
        f"#define MODEL_OUTPUT_HEIGHT {network.output.shape[0]}",
        f"#define MODEL_OUTPUT_WIDTH {network.output.shape[1]}",
        f"#define MODEL_OUTPUT_CHANNELS {network.output.shape[2]}",
        f"#define MODEL_OUTPUT_BYTES {network.output.size}",
        f"#define MODEL_OUTPUT_SCALE {number(output.scale)}",
        f"#define MODEL_OUTPUT_ZERO_POINT ({output.zero_point})",
        f"#define MODEL_LAYERS {len(network.layers)}",
        f"#define MODEL_ARENA_BYTES {network.arena_bytes}",
    ]
    if record is not None:
        lines += [
            "",
            "/* Initializers. A pixel becomes (pixel / 255 - mean) / std, then an integer as README.md says. */",
            f"#define MODEL_MEAN {initializer(record.mean)}",
            f"#define MODEL_STD {initializer(record.std)}",
            f"#define MODEL_CLASSES {len(record.class_names)}",
            "#define MODEL_CLASS_NAMES { \\",
            *(f"    {string(name)}, \\" for name in record.class_names),
            "}",
        ]
    return piece("model.h").replace("@MACROS@", "\n".join(lines))


def _model(network: Network, found: Sequence[tuple[Call, ...]]) -> str:
    constants, cases = [], []
    for i, (layer, steps) in enumerate(zip(network.layers, with_shared_arrays(found), strict=True)):
        constants += [f"/* {i}: {label(layer.name)} */", *(c for call in steps for c in call.constants), ""]
        statements = [s for call in steps for s in call.statements]
        cases += [f"        case {i}:", *(f"            {s}" for s in statements), "            break;"]
    text = piece("model.c").replace("@CONSTANTS@", "\n".join(constants)).replace("@CASES@", "\n".join(cases))
    return text.replace("@INPUT@", str(network.input_offset)).replace("@OUTPUT@", str(network.output_offset))


def _kernels_header(network: Network, used: Sequence[str]) -> str:
    pieces = _chosen(_DECLARATIONS, used)
    text = "\n".join(piece(f"{name}.h") for name in pieces)
    sizes = "\n".join(_buffer_sizes(network, used))
    return _guarded("KERNELS_H", f"#include <stdint.h>\n\n{sizes}\n\n{text}")


def _buffer_sizes(network: Network, used: Sequence[str]) -> list[str]:
    """What kernels keep on the stack."""
    most = buffers(network.layers)
    lines = []
    if "conv" in used:
        lines += [
            "/* The most numbers under a window, some of which a convolution keeps on the stack; and under one that is",
            " * not read in place. */",
            f"#define KERNEL_PATCH {most.patch}",
            f"#define KERNEL_COPIED {most.copied}",
        ]
    if "depthwise" in used:
        lines += [
            "/* The most pairs of numbers in the lines under a depthwise window and in its taps (kernel_lines). */",
            f"#define KERNEL_LINES {most.lines}",
            f"#define KERNEL_TAPS {most.taps}",
        ]
    return lines


def _kernels(used: Sequence[str]) -> str:
    text = "\n".join(piece(f"{name}.c") for name in _chosen(_CODE, used))
    return f'#include "kernels.h"\n\n#include <string.h>\n\n{piece("kernels.c")}\n{text}'


def _chosen(pieces: dict[str, tuple[str, ...]], used: Sequence[str]) -> list[str]:
    wanted = {piece for kernel in used for piece in pieces[kernel]}
    return [name for name in (*_PIECES, *pieces) if name in wanted]


def _guarded(name: str, text: str) -> str:
    return f"#ifndef {name}\n#define {name}\n\n{text}\n#endif\n"


def _test_inputs(network: Network, images: NDArray[Any] | None) -> Integers:
    if images is not None and len(images):
        return quantize_images(network, images)
    generator = np.random.default_rng(0)
    return generator.integers(-128, 128, (_RANDOM_VECTORS, *network.input.shape)).astype(np.int8)


def _test_vectors(network: Network, images: Integers) -> str:
    outputs = [run_layers(network, image)[network.output.name] for image in images]
    inputs = _rows("test_inputs", "MODEL_INPUT_BYTES", list(images))
    text = f"#define TEST_VECTORS {len(images)}\n\n{inputs}\n\n{_rows('test_outputs', 'MODEL_OUTPUT_BYTES', outputs)}\n"
    return _guarded("TEST_VECTORS_H", text)


def _rows(name: str, size: str, images: list[Integers]) -> str:
    rows = ["{\n" + wrapped([number(v) for v in image.reshape(-1)]) + "\n}" for image in images]
    return f"static const int8_t {name}[TEST_VECTORS][{size}] = {{\n{', '.join(rows)}\n}};"


def piece(name: str) -> str:
    """A file of the folder ``sources``."""
    return files("compress.c99").joinpath("sources", name).read_text(encoding="utf-8")
