"""How fast .fnz files are made and read, and their sizes beside those under gzip and xz.

    python tests/benchmarks/encode_speed.py --minutes 5

Each line is one network: median megabytes of float32 weights (four bytes for each weight of the network, whatever the
file holds) that are encoded and decoded in a second, in one thread, and bytes of the file, under ``gzip -9`` and
``xz -9``, and as .fnz. The weights are random, so the sizes say what the coding does, not what a trained network takes:
normal numbers; "shared" weights are the nearest of 16 quantiles, those of LeNet beside 92 or 98 % zeros; "signs" are
one value of either sign in each layer; of those called trained, the files of ``--file NAME=PATH`` are coded.

With ``--nncodec PYTHON``, an interpreter with the package nncodec, the integers of int8 weights, or the numbers of shared
values counted from zero, are also coded by its DeepCABAC (arXiv 1905.08318): its bytes, the values once, and all else as in
.fnz.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress.fnz import decode_onnx, describe, encode_onnx, sizes
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from search_spaces import preset
from tests.benchmarks.lines import extend
from tests.compress.fnz.files import Array, clustered, file_of, normal, sparse

_ROUNDS = 7
# Output and input sizes, and the share of weights that stays: as in Deep Compression's tables, with fewer weights.
_LENET_300_100 = {"fc1": ((300, 784), 0.02), "fc2": ((100, 300), 0.08), "fc3": ((10, 100), 0.3)}
_LENET_5 = {
    "conv1": ((20, 1, 5, 5), 0.6),
    "conv2": ((50, 20, 5, 5), 0.08),
    "fc1": ((500, 800), 0.02),
    "fc2": ((10, 500), 0.2),
}


def lenet(layers: dict[str, tuple[tuple[int, ...], float]], seed: int) -> tuple[bytes, int]:
    """The file, and how many weights it has."""
    weights: dict[str, Array] = {}
    for number, (name, (shape, density)) in enumerate(layers.items()):
        kept = sparse(clustered(normal(*shape, seed=seed + number), 16), density, seed=seed + number)
        weights |= {f"{name}.weight": kept, f"{name}.bias": normal(shape[0], seed=seed)}
    return file_of(weights), sum(w.size for w in weights.values())


_STORED: dict[str, Callable[[Array], Array]] = {
    "float16": lambda w: w.astype(np.float16),
    "int4": lambda w: np.rint(w * (7 / np.abs(w).max())).astype(ml_dtypes.int4),
    "signs": lambda w: np.where(w < 0, -1, 1).astype(np.float32) * np.abs(w).mean(),
    "zeros": lambda w: sparse(w, 0.2),
    "shared": lambda w: clustered(w, 16),
}


def mobilenet(form: str, seed: int) -> tuple[bytes, int]:
    """MobileNetV2 in float32 or int8, or its weights in another form."""
    workload = preset("mobilenetv2_100").workload()
    weights = random_weights(workload, seed)
    count = sum(w.size for w in weights.values())
    if form in _STORED:
        return file_of({name: _STORED[form](w) if w.ndim > 1 else w for name, w in weights.items()}), count
    return write_onnx(workload, weights, quantization=fixed_quantization(workload) if form == "int8" else None), count


CASES: dict[str, Callable[[int], tuple[bytes, int]]] = {
    "LeNet-300-100, sparse and shared": lambda seed: lenet(_LENET_300_100, seed),
    "LeNet-5, sparse and shared": lambda seed: lenet(_LENET_5, seed),
    "MobileNetV2, shared": lambda seed: mobilenet("shared", seed),
    "MobileNetV2, float32": lambda seed: mobilenet("fp32", seed),
    "MobileNetV2, int8": lambda seed: mobilenet("int8", seed),
    "MobileNetV2, float16": lambda seed: mobilenet("float16", seed),
    "MobileNetV2, int4": lambda seed: mobilenet("int4", seed),
    "MobileNetV2, signs": lambda seed: mobilenet("signs", seed),
    "MobileNetV2, 80 % zeros": lambda seed: mobilenet("zeros", seed),
}


NNCODEC = """
import sys
import numpy as np
from nncodec.extensions import deepCABAC
size, off = 0, (deepCABAC.HdspMode.AlwaysOff, np.zeros(2, np.int8))
for weight in np.load(sys.argv[1]).values():
    encoder = deepCABAC.Encoder()
    encoder.initCtxModels(11, 1)
    rows = np.ascontiguousarray(weight.astype(np.int32))
    empty = np.array([not row.any() for row in rows], np.int32)
    encoder.encodeLayer(rows, 0, 0, 1, 0, int(empty.any()), empty, *off, 0, 0)
    size += len(encoder.finish())
print(size)
"""


def nncodec_bytes(python: str, file: bytes, coded: bytes) -> int:
    """What the file takes when nncodec codes its weights of integers or shared values."""
    taken, values, weights = 0, 0, dict[str, Array]()
    coded_bytes = {row.name: row.bytes for row in describe(coded)}
    for tensor in onnx.load_model_from_string(file).graph.initializer:
        weight = numpy_helper.to_array(tensor)
        numbers = _numbers(weight) if weight.ndim > 1 and tensor.name in coded_bytes else None
        if numbers is not None:
            weights[tensor.name], extra = numbers
            values += extra
            taken += coded_bytes[tensor.name]
    with tempfile.NamedTemporaryFile(suffix=".npz") as place:
        np.savez(place, **{f"w{i}": weight for i, weight in enumerate(weights.values())})
        place.flush()
        done = subprocess.run([python, "-c", NNCODEC, place.name], check=True, capture_output=True, text=True)
    return len(coded) - taken + values + int(done.stdout.split()[-1])


def _numbers(weight: Array) -> tuple[Array, int] | None:
    """Integers as they are; of at most 256 values their numbers, counted from zero, and the bytes of the values."""
    if weight.dtype == np.int8:
        return weight, 0
    values, numbers = np.unique(weight, return_inverse=True)
    if weight.dtype != np.float32 or len(values) > 256:
        return None
    return numbers.reshape(weight.shape) - int(np.abs(values).argmin()), 4 * len(values)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(case: str, seed: int, *, files: Mapping[str, Path], nncodec: str | None) -> dict[str, Any]:
    file, count = trained(files[case]) if case in files else CASES[case](seed)
    coded = encode_onnx(file)
    if decode_onnx(coded) != file:
        raise AssertionError(f"{case}: decoded to another file")
    times = [(seconds(lambda: encode_onnx(file)), seconds(lambda: decode_onnx(coded))) for _ in range(_ROUNDS)]
    encode_s, decode_s = (statistics.median(each) for each in zip(*times, strict=True))
    megabytes = 4 * count / 1e6
    return {
        "weights": count,
        "encode_mb_per_s": round(megabytes / encode_s, 1),
        "decode_mb_per_s": round(megabytes / decode_s, 1),
        **{f"{name}_bytes": size for name, size in sizes(file).items()},
        **({} if nncodec is None else {"nncodec_bytes": nncodec_bytes(nncodec, file, coded)}),
    }


def trained(path: Path) -> tuple[bytes, int]:
    """A file of a user, and how many weights it has."""
    data = path.read_bytes()
    shapes = [tuple(t.dims) for t in onnx.load_model_from_string(data).graph.initializer]
    return data, sum(math.prod(shape) for shape in shapes if len(shape) > 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--case", choices=list(CASES), action="append")
    parser.add_argument("--file", action="append", default=[], metavar="NAME=PATH", help="a trained network")
    parser.add_argument("--nncodec", help="an interpreter with nncodec")
    given = parser.parse_args()
    files = {f"{name}, trained": Path(path) for name, _, path in (each.partition("=") for each in given.file)}
    cases = [(case, seed) for seed in range(3) for case in given.case or ([] if files else CASES)]
    cases += [(case, 0) for case in files]
    extend("encode_speed", cases, partial(measure, files=files, nncodec=given.nncodec), given.minutes)


if __name__ == "__main__":
    main()
