"""What each method of compression takes and leaves, on one network trained on CIFAR-10.

    python tests/benchmarks/methods.py --data FOLDER --minutes 15 [--keep FOLDER] [CASE ...]

The network, 3×3 convolutions of 24 to 256 channels, is trained once and kept in ``--keep``; every method begins with it.
What a method trains is as many epochs, images and steps by the same recipe and led by the same teacher, the network that
it began with; ``trained on`` is the same without a method. Training in integers has a lower learning rate, so its
companion has, too. Each line: accuracy of the ONNX file on all test images in ONNX Runtime; the points that are lost
against the network and against its companion, with paired 90 % intervals; bytes of the file and under coders; latency
beside the network's file, both run in turn.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from blocks.spec import BlockSpec
from compress import Artifact, Context, Dataset, Distill, Prune, Quantize, Recipe, Sparsify, load_data
from compress.data.dataset import Split
from compress.fnz import sizes
from compress.networks.onnx_export import onnx_bytes, onnx_logits
from compress.quantization.int8.qat import QuantizeAware
from compress.quantization.weight_only.binary import Binarize
from compress.quantization.weight_only.fp16 import Half
from compress.quantization.weight_only.int4 import Int4
from compress.training.loop import train
from compress.training.teachers import ModuleTeacher
from hw_profiles import load_device
from hw_profiles.measurement.latency_measurement import compare, measure
from search_spaces import build_model
from search_spaces.arch import Arch
from search_spaces.layout import block
from tests.benchmarks.lines import ROOT, extend, read

NAME = "methods"
STEM, WIDTHS = 24, ((48,), (96, 96), (256, 256))
BEFORE = Recipe(epochs=10)
AFTER = Recipe(epochs=3, learning_rate=0.03, bfloat16=True)
LONGER = replace(AFTER, epochs=8)
IN_INTEGERS = Recipe(epochs=3, learning_rate=0.004, weight_decay=1e-4)  # sums of integers are exact in float32 only
INT4_GROUP = 128

Way = Callable[[Artifact, Context], Artifact]


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """``way``: from the network to another. ``companion``: the case that was trained as long without a method."""

    way: Way
    companion: str = ""


def network(kind: str, data: Dataset) -> Arch:
    """Stem and five convolutions: ``"conv"`` are dense ones, ``"separable"`` depthwise ones each before a 1×1 one."""
    stem = BlockSpec(kind="conv", in_channels=data.preprocessing.channels, out_channels=STEM)
    stages, channels = [], stem.out_channels
    for widths in WIDTHS:
        stage = []
        for place, width in enumerate(widths):
            activation = {"output_activation": "relu"} if kind == "separable" else {}
            stage.append(block(kind, channels, width, 1 if place else 2, activation="relu", **activation))
            channels = width
        stages.append(tuple(stage))
    return Arch(
        input_shape=data.preprocessing.input_shape, stem=stem, stages=tuple(stages), head=None,
        num_classes=data.num_classes,
    )  # fmt: skip


def trained(kind: str, data: Dataset) -> Artifact:
    arch = network(kind, data)
    model = build_model(arch)
    # Depthwise convolutions are slower in bfloat16.
    training = train(model, data, replace(BEFORE, bfloat16=kind == "conv"))
    artifact = Artifact(source=arch, weights={}, preprocessing=data.preprocessing).with_model(model)
    return replace(artifact, metrics={"training": asdict(training)})


def kept(folder: Path, data: Dataset) -> Artifact:
    """The network that all begin with, from the folder if it is there."""
    if not (folder / "artifact.json").is_file():
        trained("conv", data).save(folder)
    return Artifact.load(folder)


def taught(stage: Distill) -> Way:
    """The stage with what the network is as its teacher."""

    def way(artifact: Artifact, context: Context) -> Artifact:
        teacher = ModuleTeacher(artifact.model(), artifact.preprocessing)
        return stage(artifact, replace(context, teacher=teacher))

    return way


TRAINED_ON, TRAINED_ON_SLOWLY, TRAINED_LONGER = "trained on", "trained on, lower rate", "trained on, longer"
METHODS: dict[str, Method] = {
    "network": Method(way=lambda artifact, context: artifact),
    TRAINED_ON: Method(way=taught(Distill(recipe=AFTER))),
    "80 % zeros": Method(way=Sparsify(amount=0.8, recipe=AFTER), companion=TRAINED_ON),
    "fp16": Method(way=Half(), companion="network"),
    "int8": Method(way=Quantize(), companion="network"),
    "int4": Method(way=Int4(group=INT4_GROUP), companion="network"),
    "90 % zeros": Method(way=Sparsify(amount=0.9, recipe=AFTER), companion=TRAINED_ON),
    "half of the channels": Method(way=Prune(amount=0.5, criterion="l2", steps=2, recipe=AFTER), companion=TRAINED_ON),
    "half of the channels, Taylor": Method(
        way=Prune(amount=0.5, criterion="taylor", steps=2, recipe=AFTER), companion=TRAINED_ON
    ),
    "binary": Method(way=Binarize(recipe=AFTER), companion=TRAINED_ON),
    TRAINED_ON_SLOWLY: Method(way=taught(Distill(recipe=replace(IN_INTEGERS, bfloat16=True)))),
    "int8, trained": Method(way=QuantizeAware(recipe=IN_INTEGERS), companion=TRAINED_ON_SLOWLY),
    "separable": Method(way=lambda artifact, context: trained("separable", context.data), companion="network"),
    TRAINED_LONGER: Method(way=taught(Distill(recipe=LONGER))),
    "90 % zeros, longer": Method(way=Sparsify(amount=0.9, recipe=LONGER), companion=TRAINED_LONGER),
    "int4, trained": Method(way=Int4(group=INT4_GROUP, recipe=AFTER), companion=TRAINED_ON),
}


def run(case: str, data: Dataset, folder: Path) -> dict[str, Any]:
    method, start = METHODS[case], kept(folder / "network", data)
    device = load_device("host")
    artifact = start if case == "network" else method.way(replace(start, metrics={}), Context(data=data, device=device))
    file = written(case, artifact, folder)
    plain = file if case == "network" else written("network", start, folder)
    latency = measure(file, device, input_shape=data.preprocessing.input_shape)
    right = {split: rights(file, getattr(data, split), artifact) for split in ("val", "test")}
    workload = artifact.workload()
    return {
        "network": digest(start),
        "companion": method.companion,
        "test_images": len(right["test"]),
        **{f"{split}_accuracy": float(found.mean()) for split, found in right.items()},
        "points_lost": points_lost(rights(plain, data.test, start), right["test"]),
        "points_lost_to_companion": points_lost(companion_rights(method, folder, data, start), right["test"]),
        "macs": workload.macs,
        "macs_of_blocks": sum(workload.op_macs(op) for op in workload.ops if op.name.startswith("stages.")),
        "params": workload.params,
        "weight_bytes": workload.weight_bytes,
        "bytes": sizes(file.read_bytes()),
        "latency_ms": round(latency.ms, 4),
        "latency_over_network": [round(ratio, 3) for ratio in compare(file, plain, device)],
        "training": artifact.metrics.get("training"),
    }


def written(case: str, artifact: Artifact, folder: Path) -> Path:
    """The file of a case, kept for those whose companion it is."""
    path = folder / f"{case}.onnx"
    path.write_bytes(onnx_bytes(artifact))
    return path


def companion_rights(method: Method, folder: Path, data: Dataset, start: Artifact) -> NDArray[np.bool_] | None:
    return rights(folder / f"{method.companion}.onnx", data.test, start) if method.companion else None


def rights(file: Path, split: Split, artifact: Artifact) -> NDArray[np.bool_]:
    """Which images the file puts into their class."""
    found: NDArray[np.bool_] = onnx_logits(file, split.images, artifact.preprocessing).argmax(1) == split.labels
    return found


def points_lost(before: NDArray[np.bool_] | None, after: NDArray[np.bool_]) -> list[float] | None:
    """Percentage points that are lost, and both ends of the 90 % interval."""
    if before is None:
        return None
    lost = 100 * (before.astype(float) - after)
    mean, reach = float(lost.mean()), 1.645 * float(lost.std()) / len(lost) ** 0.5
    return [round(value, 3) for value in (mean, mean - reach, mean + reach)]


def digest(artifact: Artifact) -> str:
    """Which network it is: lines of different ones are not to be compared."""
    found = hashlib.sha256()
    for name in sorted(artifact.weights):
        found.update(artifact.weights[name].numpy().tobytes())
    return found.hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"of {'; '.join(METHODS)}. All by default".replace("%", "%%")
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--keep", type=Path, default=ROOT / "runs" / "benchmarks" / NAME)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data, known = load_data(given.data), {(line["case"], line["network"]) for line in read(NAME)}
    given.keep.mkdir(parents=True, exist_ok=True)
    which = digest(kept(given.keep / "network", data))
    cases = [(case, 0) for case in given.cases or METHODS if (case, which) not in known]
    extend(NAME, cases, lambda case, seed: run(case, data, given.keep), given.minutes)


if __name__ == "__main__":
    main()
