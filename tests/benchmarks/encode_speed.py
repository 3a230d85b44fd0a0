"""How fast .fnz files are made and read, and their sizes beside those under gzip and xz.

    python tests/benchmarks/encode_speed.py --minutes 5

Each line is one network: median megabytes of float32 weights (four bytes for each weight of the network, whatever the
file holds) that are encoded and decoded in a second, in one thread, and bytes of the file, under ``gzip -9`` and
``xz -9``, and as .fnz. The weights are random, so the sizes say what the coding does, not what a trained network takes:
normal numbers; "shared" weights are the nearest of 16 quantiles, those of LeNet beside 92 or 98 % zeros; "signs" are
one value of either sign in each layer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress.fnz import decode_onnx, encode_onnx, sizes
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


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(case: str, seed: int) -> dict[str, Any]:
    file, count = CASES[case](seed)
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
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--case", choices=list(CASES), action="append")
    given = parser.parse_args()
    extend("encode_speed", [(case, seed) for seed in range(3) for case in given.case or CASES], measure, given.minutes)


if __name__ == "__main__":
    main()
