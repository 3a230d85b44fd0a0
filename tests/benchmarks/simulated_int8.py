"""Whether int8 simulated in PyTorch says what the exported file says, how fast, and which network each score picks.

    python tests/benchmarks/simulated_int8.py --data FOLDER|FILE.npz --minutes 30 [--networks FOLDER]
    python tests/benchmarks/simulated_int8.py --summary

Each line: a random network, trained for 40 seconds on one core, its activations scaled to their extremes. The share of
test images that the simulation puts into the class of the exported file, beside the share for which ONNX Runtime's
unoptimized graph does; the share of logits that are equal; accuracies in float32 and int8, of all images and of two
halves of them; images per second; estimated milliseconds and bytes in int8; and what may tell before training how much
int8 will hurt. ``--networks`` keeps the trained networks, and takes those that are there. ``--summary`` prints what
simulated_int8_tables.py computes from the lines.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import Artifact, Context, Dataset, Quantize, Recipe, load_data
from compress.data.dataset import Split
from compress.networks.onnx_export import onnx_bytes
from compress.quantization.simulator.simulator import simulated
from compress.training.evaluation import accuracy
from compress.training.loop import train
from hw_profiles import load_device, profile
from hw_profiles.network.tensor_formats import PRECISIONS
from hw_profiles.onnx_io.session import open_session
from search_spaces import build_model, load_space
from search_spaces.arch import Arch
from tests.benchmarks.fragility import fragility
from tests.benchmarks.lines import extend
from tests.benchmarks.simulated_int8_tables import NAME, summary

SECONDS = 40
CASES = {"mobilenet": 8, "efficientnet": 8, "fused": 7, "tiny": 7}
MOST_MACS = 25e6  # more cannot learn anything in the time
IMAGES = 5000
BATCH = 250

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def network(space: str, seed: int, data: Dataset) -> Arch:
    """The random network of that number among those that are small enough."""
    found = load_space(space, input_shape=data.preprocessing.input_shape, num_classes=data.num_classes)
    small = (arch for arch in map(found.sample, range(100_000)) if arch.workload().macs <= MOST_MACS)
    return next(arch for number, arch in enumerate(small) if number == seed)


def trained(space: str, seed: int, data: Dataset, folder: Path) -> Artifact:
    """The network after its 40 seconds, from the folder if it is there."""
    place = folder / f"{space}-{seed}"
    if (place / "artifact.json").is_file():
        return Artifact.load(place)
    arch = network(space, seed, data)
    sized = data.resized(*arch.input_shape[1:])
    model = build_model(arch, seed=seed)
    train(model, sized, Recipe(epochs=100, seconds=SECONDS), seed=seed)
    artifact = Artifact(source=arch, weights={}, preprocessing=sized.preprocessing).with_model(model)
    artifact.save(place)
    return artifact


def run(space: str, seed: int, data: Dataset, folder: Path) -> dict[str, Any]:
    artifact = trained(space, seed, data, folder)
    sized, device = data.resized(*artifact.arch.input_shape[1:]), load_device("host")
    stage = Quantize(calibration="minmax", equalize="none", bias_correction=False, adaround=False)
    quantized = stage(artifact, Context(data=sized, device=device))
    file, plain = onnx_bytes(quantized), artifact.model()
    chosen = np.random.default_rng(0).permutation(len(sized.test))[:IMAGES]  # the set may be sorted by class
    split = sized.test.take(np.sort(chosen))
    x = artifact.preprocessing.tensor(split.images)
    logits, speed = {}, {}
    for name, predict in {
        "file": _session(open_session(file)),
        "unoptimized": _session(_unoptimized(file)),
        "simulated": _module(simulated(quantized)),
        "float": _module(plain.to(memory_format=torch.channels_last)),
    }.items():
        logits[name], speed[name] = _timed(predict, x)
    classes = {name: values.argmax(1) for name, values in logits.items()}
    return {
        "macs": artifact.arch.workload().macs,
        "side": artifact.arch.input_shape[1],
        "images": len(x),
        "agreement": float(np.mean(classes["simulated"] == classes["file"])),
        "runtime_agreement": float(np.mean(classes["unoptimized"] == classes["file"])),
        "equal_logits": float(np.mean(logits["simulated"] == logits["file"])),
        "runtime_equal_logits": float(np.mean(logits["unoptimized"] == logits["file"])),
        "fp32_accuracy": accuracy(classes["float"], split),
        "int8_accuracy": accuracy(classes["file"], split),
        "simulated_accuracy": accuracy(classes["simulated"], split),
        "fp32_halves": _halves(classes["float"], split),
        "int8_halves": _halves(classes["file"], split),
        "images_per_second": {name: round(value) for name, value in speed.items()},
        "estimated_ms": {p: round(profile(artifact.arch, device, precision=p).latency_ms, 4) for p in PRECISIONS},
        "flash_bytes": profile(artifact.arch, device, precision="int8").flash_bytes,
        **_guesses(artifact.arch, artifact.preprocessing.tensor(sized.train.images[:128])),
    }


def _halves(classes: NDArray[np.int64], split: Split) -> list[float]:
    """The accuracy on every other image, and on the others."""
    return [accuracy(classes[i::2], split.take(np.arange(i, len(split), 2))) for i in (0, 1)]


def _guesses(arch: Arch, images: NDArray[np.float32]) -> dict[str, float]:
    """What is known before training: noise, depthwise convolutions, functions that are no ReLU, squeeze-excite parts."""
    ops = arch.workload().ops
    return {
        "fragility": round(fragility(arch, images), 5),
        "depthwise": sum(op.depthwise for op in ops),
        "curved": sum(op.function in ("silu", "hard_swish") for op in ops),
        "gates": sum(op.kind == "mul" for op in ops),
    }


def _timed(predict: Predict, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Logits, and images per second by the median batch of 250."""
    predict(x[:BATCH])
    found, seconds = [], []
    for i in range(0, len(x), BATCH):
        start = time.perf_counter()
        found.append(predict(x[i : i + BATCH]))
        seconds.append((time.perf_counter() - start) / len(found[-1]))
    return np.concatenate(found), 1 / statistics.median(seconds)


def _session(session: Any) -> Predict:
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def _unoptimized(file: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def _predicted(module: torch.nn.Module, x: NDArray[np.float32]) -> NDArray[np.float32]:
    images = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
    found: NDArray[np.float32] = module(images).numpy()
    return found


def _module(module: torch.nn.Module) -> Predict:
    return lambda x: _predicted(module, x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    if arguments.data:
        torch.set_num_threads(1)
        data = load_data(arguments.data)
        folder = arguments.networks or Path(tempfile.mkdtemp())
        cases = [(space, seed) for space, count in CASES.items() for seed in range(count)]
        extend(NAME, cases, lambda space, seed: run(space, seed, data, folder), arguments.minutes)
    if arguments.summary:
        for name, value in summary().items():
            print(name, value)


if __name__ == "__main__":
    main()
