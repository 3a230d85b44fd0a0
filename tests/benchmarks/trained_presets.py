"""Trained presets as C on test images: beside the numpy reference, and beside ONNX Runtime, which differs from itself.

    python tests/benchmarks/trained_presets.py --data FOLDER|FILE.npz --minutes 30 [--networks FOLDER] [NAME ...]

Each line: a preset at 32 pixels, trained for 100 seconds on one core, or a network that train_networks.py kept, which
is a preset with finer strides; its activations scaled to their extremes, exported as C99 and run on 1,000 test images.
How many outputs of the program are the reference's; the share of images that it puts into another class than ONNX
Runtime's unoptimized graph does, beside the share for which the optimized graph does so; and layers fed the reference's
own inputs on this machine and on emulated Cortex-M4 and M7. ``--networks`` keeps the presets after their training, and
takes those that are there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import Artifact, Context, Dataset, Quantize, Recipe, load_data
from compress.c99 import Verification, verify, write_c99
from compress.networks.onnx_export import export_onnx, predict_onnx
from compress.training.evaluation import accuracy, predict
from compress.training.loop import train
from hw_profiles import load_device
from search_spaces import build_model, preset
from tests.benchmarks.lines import extend
from tests.benchmarks.train_networks import MAKERS, NETWORKS

NAME = "trained_presets"
PRESETS = ("resnet8", "mobilenetv1_025", "mobilenetv2_025", "mobilenetv3_small_050")
SECONDS = 100
IMAGES = 1000


def trained(name: str, data: Dataset, folder: Path) -> Artifact:
    """The preset after its training, from the folder if it is there; or a network that was kept."""
    place = (NETWORKS if name in MAKERS else folder) / name
    if (place / "artifact.json").is_file():
        return Artifact.load(place)
    if name in MAKERS:
        raise SystemExit(f"{place}: train_networks.py makes it first")
    arch = preset(name, input_shape=data.preprocessing.input_shape, num_classes=data.num_classes)
    model = build_model(arch, seed=0)
    train(model, data, Recipe(epochs=100, seconds=SECONDS))
    artifact = Artifact(source=arch, weights={}, preprocessing=data.preprocessing).with_model(model)
    artifact.save(place)
    return artifact


def run(data: Dataset, folder: Path, name: str, seed: int) -> dict[str, Any]:
    artifact = trained(name, data, folder)
    stage = Quantize(calibration="minmax", equalize="none", bias_correction=False, adaround=False)
    quantized = stage(artifact, Context(data=data, device=load_device("host"), seed=seed))
    split = data.test.some(IMAGES, seed)
    images = artifact.preprocessing.tensor(split.images)
    with tempfile.TemporaryDirectory() as temporary:
        file, program = Path(temporary, "model.onnx"), Path(temporary, "c")
        export_onnx(quantized, file)
        write_c99(file, program)
        found = verify(program, file, images)
        int8 = accuracy(predict_onnx(file, split, artifact.preprocessing), split)
    return {
        "trained_seconds": None if name in MAKERS else SECONDS,
        "macs": artifact.arch.workload().macs,
        "images": len(images),
        "fp32_accuracy": accuracy(predict(artifact.model(), split, artifact.preprocessing), split),
        "int8_accuracy": int8,
        **_proof(found),
    }


def _proof(found: Verification) -> dict[str, Any]:
    return {
        "disagreement": found.disagreement,
        "runtime_disagreement": found.runtime.own_disagreement if found.runtime else None,
        "verified": found.verified,
        "problems": list(found.problems),
        "skipped": list(found.skipped),
        "machines": {
            m.machine: {
                "images": m.images, "images_equal": m.equal, "values": m.values, "values_equal": m.exact,
                "largest": m.largest, "code_bytes": m.sizes.code, "arena_bytes": m.sizes.zeros,
                "stack_bytes": m.stack_bytes,
            }
            for m in found.machines
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join((*PRESETS, *MAKERS))}; those that are there"
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--networks", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(arguments.data).resized(32, 32)
    folder = arguments.networks or Path(tempfile.mkdtemp())
    names = arguments.names or [*PRESETS, *(name for name in MAKERS if (NETWORKS / name).is_dir())]
    extend(NAME, [(name, 0) for name in names], partial(run, data, folder), arguments.minutes)


if __name__ == "__main__":
    main()
