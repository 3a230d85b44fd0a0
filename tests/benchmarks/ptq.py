"""Post-training int8 of ONNX Runtime, NNCF and ours on the same trained networks, images and runtime.

    python tests/benchmarks/ptq.py --data FOLDER [--nncf PYTHON] --minutes 30

``--nncf`` is an interpreter with nncf, which has requirements of its own. All get the same 1,024 training images (ours
calibrates on one half and decides on the other) and the float file that torch exports (opset 17, the one NNCF reads
best). Each line: one network of ``networks/`` and one method; accuracy of the float and the int8 file on all test
images in ONNX Runtime, what int8 loses in percentage points with the paired 90 % interval, the latency of the int8 file
and how many times as long it takes as the float file of ours, both run in turn.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import Artifact, Context, Dataset, MixedPrecision, Quantize, load_data
from compress.networks.network_source import OnnxFile
from compress.networks.onnx_export import export_onnx
from hw_profiles import load_device
from hw_profiles.measurement.latency_measurement import compare, measure
from hw_profiles.onnx_io.session import open_session
from tests.benchmarks.lines import extend
from tests.benchmarks.train_networks import MAKERS, NETWORKS

IMAGES = 1024


@dataclass(frozen=True, slots=True)
class Case:
    """A trained network, images, the float file that torch exports, and where the int8 file is written."""

    artifact: Artifact
    data: Dataset
    source: Path
    target: Path


Method = Callable[[Case], dict[str, Any] | None]  # writes the int8 file, and tells what it chose

NNCF = """
import sys, numpy, onnx, nncf
source, images, target, preset, correction = sys.argv[1:]
model = onnx.load(source)
name = model.graph.input[0].name
data = nncf.Dataset([{name: image[None]} for image in numpy.load(images)])
done = nncf.quantize(model, data, subset_size=len(numpy.load(images)), preset=nncf.QuantizationPreset(preset),
                     fast_bias_correction=correction == "fast")
onnx.save(done, target)
"""

# preset and bias correction: its defaults, then what its documentation advises where activations are not symmetric
NNCF_OPTIONS = {
    "nncf": ("performance", "fast"),
    "nncf mixed": ("mixed", "fast"),
    "nncf mixed, full bias correction": ("mixed", "full"),
}


def chosen_images(data: Dataset) -> np.ndarray:
    """The training images that ``Quantize`` draws by seed 0, those for calibrating first."""
    order = np.random.default_rng(0).permutation(len(data.train))
    half = IMAGES // 2
    return np.concatenate([order[:half], order[-half:]])


def calibration(data: Dataset) -> np.ndarray:
    """Those images as a network reads them."""
    return data.preprocessing.tensor(data.train.images[chosen_images(data)])


def exported(artifact: Artifact, path: Path) -> None:
    axes = {"input": {0: "N"}, "output": {0: "N"}}
    x = torch.zeros(1, *artifact.preprocessing.input_shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(artifact.model(), (x,), path, dynamo=False, opset_version=17, input_names=["input"],
                          output_names=["output"], dynamic_axes=axes)  # fmt: skip


def onnxruntime_static(method: str, case: Case) -> None:
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
            self.batches = iter(np.split(calibration(case.data), IMAGES // 32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch}

    prepared = case.source.with_suffix(".prepared.onnx")
    quant_pre_process(case.source, prepared)
    quantize_static(prepared, case.target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod[method])  # fmt: skip


def nncf(python: str, options: tuple[str, str], case: Case) -> None:
    images = case.source.with_suffix(".npy")
    np.save(images, calibration(case.data))
    command = [python, "-c", NNCF, str(case.source), str(images), str(case.target), *options]
    subprocess.run(command, check=True, capture_output=True)


def ours(stage: Quantize, case: Case) -> dict[str, Any]:
    done = stage(case.artifact, Context(data=case.data, device=load_device("host")))
    export_onnx(done, case.target)
    return dict(done.metrics["quantization"])


def ours_mixed(case: Case) -> dict[str, Any]:
    """What it takes the validation images for is done on the same 1,024 here."""
    data = replace(case.data, val=case.data.train.take(chosen_images(case.data)))
    done = MixedPrecision()(case.artifact, Context(data=data, device=load_device("host")))
    export_onnx(done, case.target)
    found = done.metrics["mixed"]
    return {name: found[name] for name in ("raised", "divergence", "agreement", "points_lost")}


def ours_of_file(stage: Quantize, case: Case) -> dict[str, Any]:
    file = OnnxFile(data=case.source.read_bytes())
    return ours(stage, replace(case, artifact=replace(case.artifact, source=file, weights={})))


def right(path: Path, data: Dataset) -> np.ndarray:
    """Which test images the file gets right."""
    session = open_session(path)
    name, found = session.get_inputs()[0].name, []
    for start in range(0, len(data.test), 250):
        pixels = data.test.images[start : start + 250]
        found.append(session.run(None, {name: data.preprocessing.tensor(pixels)})[0].argmax(1))
    return np.concatenate(found) == data.test.labels


def methods(python: str | None) -> dict[str, Method]:
    """Ours and those of the peers, then ours with less or more of it."""
    whole = Quantize(images=IMAGES // 2)
    plain = replace(whole, calibration="minmax", equalize="none", bias_correction=False, adaround=False)
    found: dict[str, Method] = {"fitnas": functools.partial(ours, whole)}
    for method in ("MinMax", "Entropy", "Percentile"):
        found[f"onnxruntime {method}"] = functools.partial(onnxruntime_static, method)
    for label, options in NNCF_OPTIONS.items() if python else ():
        found[label] = functools.partial(nncf, python, options)
    return found | {
        "fitnas mixed": ours_mixed,
        "fitnas of the ONNX file": functools.partial(ours_of_file, whole),
        "fitnas AdaRound": functools.partial(ours, replace(whole, adaround=True)),
        "fitnas per tensor": functools.partial(ours, replace(whole, per_channel=False)),
        "fitnas minmax only": functools.partial(ours, plain),
    }


@dataclass(frozen=True, slots=True)
class Files:
    """A network's float files, torch's and ours, and what a method makes of them; made where they are missing."""

    folder: Path
    network: str

    @property
    def source(self) -> Path:
        """The float file that torch exports."""
        return self.folder / f"{self.network}.onnx"

    @property
    def plain(self) -> Path:
        """The float file of ours."""
        return self.folder / f"{self.network} plain.onnx"

    def int8(self, name: str, method: Method, data: Dataset) -> tuple[Path, dict[str, Any]]:
        """The file of a method, and the seconds it took to make with what was chosen."""
        artifact = Artifact.load(NETWORKS / self.network)
        target = self.folder / f"{self.network} {name}.onnx"
        record = target.with_suffix(".json")
        if not record.is_file():
            exported(artifact, self.source)
            export_onnx(artifact, self.plain)
            start = time.perf_counter()
            chosen = method(Case(artifact, data, self.source, target))
            record.write_text(json.dumps({"seconds": round(time.perf_counter() - start, 1), "chosen": chosen}))
        return target, json.loads(record.read_text())


def judged(files: Files, target: Path, data: Dataset) -> dict[str, Any]:
    """What int8 takes in accuracy and saves in time."""
    device = load_device("host")
    before, after = right(files.source, data), right(target, data)
    lost = 100 * (before.astype(float) - after)
    reach = 1.645 * lost.std() / np.sqrt(len(lost))
    latency = measure(target, device, input_shape=data.preprocessing.input_shape)
    ratio = [round(each, 4) for each in compare(target, files.plain, device)]
    return {
        "float_accuracy": float(before.mean()), "int8_accuracy": float(after.mean()),
        "points_lost": round(float(lost.mean()), 3),
        "points_lost_90": [round(float(lost.mean() - reach), 3), round(float(lost.mean() + reach), 3)],
        "latency_ms": round(latency.ms, 4), "latency_over_float": ratio[0], "latency_over_float_90": ratio[1:],
        "file_bytes": target.stat().st_size,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--nncf", help="an interpreter with nncf")
    parser.add_argument("--method", action="append", help="all by default")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--files", type=Path, help="a folder where the files stay, to be made now and measured later")
    parser.add_argument("--make-only", action="store_true", help="make the files, and judge none")
    arguments = parser.parse_args()
    data, found = load_data(arguments.data), methods(arguments.nncf)
    names = [name for name in found if name in (arguments.method or found)]
    cases = [(f"{network}: {method}", 0) for method in names for network in MAKERS if (NETWORKS / network).is_dir()]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)

        def run(case: str, seed: int) -> dict[str, Any]:
            network, _, name = case.partition(": ")
            target, record = Files(folder, network).int8(name, found[name], data)
            return {} if arguments.make_only else {**judged(Files(folder, network), target, data), **record}

        if arguments.make_only:
            for case, seed in cases:
                run(case, seed)
                print(case, flush=True)
        else:
            extend("ptq", cases, run, arguments.minutes)


if __name__ == "__main__":
    main()
