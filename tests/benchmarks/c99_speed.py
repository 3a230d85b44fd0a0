"""Milliseconds of one image on this machine, one thread: generated C, emx-onnx-cgen's C of the same file, ONNX Runtime."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import onnxruntime as ort

from compress.c99 import write_c99
from search_spaces import preset
from tests.compress.c99.files import images, network_file

ROUNDS = 60
FLAGS = {"-O3": ("-O3",), "-O3 -march=native": ("-O3", "-march=native")}

# Both programs in turn; what is printed is milliseconds of each round.
PROGRAM = """
#include <stdio.h>
#include <time.h>
#include "model.h"
void emx(int n, const float *in, float *out);
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}
int main(void) {
    static int8_t in[MODEL_INPUT_BYTES], out[MODEL_OUTPUT_BYTES];
    static float x[MODEL_INPUT_BYTES], y[MODEL_OUTPUT_BYTES];
    for (int i = 0; i < MODEL_INPUT_BYTES; i++) {
        in[i] = (int8_t)(i * 37);
        x[i] = (float)(i % 7) - 3.0f;
    }
    model_init();
    for (int round = 0; round < ROUNDS; round++) {
        const double start = now();
        for (int i = 0; i < 10; i++) {
            model_run(in, out);
        }
        const double middle = now();
        emx(1, x, y);
        printf("%.6f %.6f\\n", (middle - start) / 10, now() - middle);
    }
    return 0;
}
"""


def rounds(folder: Path, flags: tuple[str, ...]) -> list[tuple[float, float]]:
    sources = ["time.c", "emx.c", "c/model.c", "c/kernels.c"]
    strict = ["-std=gnu99", "-ffp-contract=off", f"-DROUNDS={ROUNDS}", "-Ic"]
    subprocess.run(["gcc", *strict, *flags, "-o", "time", *sources, "-lm"], cwd=folder, check=True, capture_output=True)
    done = subprocess.run([str(folder / "time")], check=True, capture_output=True, text=True)
    return [(float(a), float(b)) for a, b in (line.split() for line in done.stdout.splitlines())]


def onnx_runtime_ms(file: Path, shape: tuple[int, int, int]) -> float:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images(shape, 1)}
    taken = []
    for _ in range(20 * ROUNDS):
        start = time.process_time()
        session.run(None, feed)
        taken.append(1000 * (time.process_time() - start))
    return statistics.median(taken)


def measure(case: str, emx: str) -> dict[str, Any]:
    name, _, side = case.partition("@")
    arch = preset(name, input_shape=(3, int(side), int(side)), num_classes=10)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = network_file(Path(folder, "model.onnx"), arch)
        write_c99(file, Path(folder, "c"))
        Path(folder, "time.c").write_text(PROGRAM)
        other = [emx, "compile", "--model-name", "emx", str(file), str(Path(folder, "emx.c"))]
        subprocess.run(other, check=True, capture_output=True)
        found["emx_calls_malloc"] = Path(folder, "emx.c").read_text().count("malloc(")
        found["onnx_runtime_ms"] = round(onnx_runtime_ms(file, arch.input_shape), 4)
        for label, flags in FLAGS.items():
            taken = rounds(Path(folder), flags)
            found[label] = {
                "ms": round(statistics.median(a for a, _ in taken), 4),
                "emx_ms": round(statistics.median(b for _, b in taken), 4),
                "emx_over_ours": round(statistics.median(b / a for a, b in taken), 2),
            }
    return found
