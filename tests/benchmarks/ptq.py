"""Post-training int8 of ONNX Runtime, NNCF and ours on the same trained networks, images and runtime.

    python tests/benchmarks/ptq.py --data FOLDER [--nncf PYTHON] --minutes 30

``--nncf`` is an interpreter with nncf, which has requirements of its own. All get the same 1,024 training images (ours
calibrates on one half and decides on the other) and the float file that torch exports (opset 17, the one NNCF reads
best). Each line: one network of ``networks/`` and one method; accuracy of the float and the int8 file on all test
images in ONNX Runtime, what int8 loses in percentage points with the paired 90 % interval, and the latency of both.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import Artifact, Context, Dataset, Quantize, load_data
from compress.export import export_onnx
from compress.post_training_onnx import quantize_onnx
from hw_profiles import load_device
from hw_profiles.host import compare, measure, open_session
from tests.benchmarks.lines import extend

NETWORKS = Path(__file__).parent / "networks"
IMAGES = 1024

NNCF = """
import sys, numpy, onnx, nncf
source, images, target, fast = sys.argv[1:]
model = onnx.load(source)
name = model.graph.input[0].name
data = nncf.Dataset([{name: image[None]} for image in numpy.load(images)])
done = nncf.quantize(model, data, subset_size=len(numpy.load(images)), fast_bias_correction=fast == "fast")
onnx.save(done, target)
"""


def calibration(data: Dataset) -> np.ndarray:
    """The images that ``Quantize`` draws by seed 0, those for calibrating first."""
    order = np.random.default_rng(0).permutation(len(data.train))
    half = IMAGES // 2
    chosen = np.concatenate([order[:half], order[-half:]])
    return data.preprocessing.tensor(data.train.images[chosen])


def exported(artifact: Artifact, path: Path) -> None:
    axes = {"input": {0: "N"}, "output": {0: "N"}}
    x = torch.zeros(1, *artifact.preprocessing.input_shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(artifact.model(), (x,), path, dynamo=False, opset_version=17, input_names=["input"],
                          output_names=["output"], dynamic_axes=axes)  # fmt: skip


def onnxruntime_static(method: str, source: Path, images: np.ndarray, target: Path) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(np.split(images, len(images) // 32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch}

    prepared = source.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_static(prepared, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod[method])  # fmt: skip


def nncf(python: str, speed: str, source: Path, images: np.ndarray, target: Path) -> None:
    np.save(source.with_suffix(".npy"), images)
    command = [python, "-c", NNCF, str(source), str(source.with_suffix(".npy")), str(target), speed]
    subprocess.run(command, check=True, capture_output=True)


def ours(stage: Quantize, artifact: Artifact, data: Dataset, target: Path) -> dict[str, Any]:
    done = stage(artifact, Context(data=data, device=load_device("host")))
    export_onnx(done, target)
    return dict(done.metrics["quantization"])


def right(path: Path, data: Dataset) -> np.ndarray:
    """Which test images the file gets right."""
    session = open_session(path)
    name, found = session.get_inputs()[0].name, []
    for start in range(0, len(data.test), 250):
        pixels = data.test.images[start : start + 250]
        found.append(session.run(None, {name: data.preprocessing.tensor(pixels)})[0].argmax(1))
    return np.concatenate(found) == data.test.labels


def methods(python: str | None) -> dict[str, Callable[..., dict[str, Any] | None]]:
    """What each does with (artifact, data, float file, target)."""
    stages = {
        "fitnas": Quantize(images=IMAGES // 2),
        "fitnas AdaRound": Quantize(images=IMAGES // 2, adaround=True),
        "fitnas per tensor": Quantize(images=IMAGES // 2, per_channel=False),
        "fitnas minmax only": Quantize(
            images=IMAGES // 2, calibration="minmax", equalize="none", bias_correction=False, adaround=False
        ),
    }
    found: dict[str, Callable[..., dict[str, Any] | None]] = {
        name: functools.partial(lambda stage, a, d, source, target: ours(stage, a, d, target), stage)
        for name, stage in stages.items()
    }
    for method in ("MinMax", "Entropy", "Percentile"):
        found[f"onnxruntime {method}"] = functools.partial(
            lambda m, a, d, source, target: onnxruntime_static(m, source, calibration(d), target), method
        )
    found["fitnas of the ONNX file"] = lambda a, d, source, target: target.write_bytes(
        quantize_onnx(source.read_bytes(), calibration(d))
    ) and None  # fmt: skip
    if python:
        for speed, label in (("fast", "nncf"), ("full", "nncf full bias correction")):
            found[label] = functools.partial(
                lambda s, a, d, source, target: nncf(python, s, source, calibration(d), target), speed
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--nncf", help="an interpreter with nncf")
    parser.add_argument("--minutes", type=float, default=30)
    arguments = parser.parse_args()
    data, device, found = load_data(arguments.data), load_device("host"), methods(arguments.nncf)

    def run(case: str, seed: int) -> dict[str, Any]:
        network, _, method = case.partition(": ")
        artifact = Artifact.load(NETWORKS / network)
        with tempfile.TemporaryDirectory() as folder:
            source, plain, target = (Path(folder) / f"{name}.onnx" for name in ("float", "plain", "int8"))
            exported(artifact, source)
            export_onnx(artifact, plain)
            start = time.perf_counter()
            chosen = found[method](artifact, data, source, target)
            seconds = time.perf_counter() - start
            before, after = right(source, data), right(target, data)
            lost = 100 * (before.astype(float) - after)
            reach = 1.645 * lost.std() / np.sqrt(len(lost))
            latency, ratio = measure(target, device, input_shape=data.preprocessing.input_shape), None
            ratio = compare(target, plain, device) if "fitnas" in method else None
            return {
                "float_accuracy": float(before.mean()), "int8_accuracy": float(after.mean()),
                "points_lost": round(float(lost.mean()), 3),
                "points_lost_90": [round(float(lost.mean() - reach), 3), round(float(lost.mean() + reach), 3)],
                "latency_ms": round(latency.ms, 4), "latency_over_float": ratio and round(ratio[0], 3),
                "seconds": round(seconds, 1), "file_bytes": target.stat().st_size, "chosen": chosen,
            }  # fmt: skip

    networks = sorted(path.name for path in NETWORKS.iterdir() if (path / "artifact.json").is_file())
    extend("ptq", [(f"{network}: {method}", 0) for network in networks for method in found], run, arguments.minutes)


if __name__ == "__main__":
    main()
