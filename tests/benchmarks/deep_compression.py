"""Deep Compression's table again (Han et al., 1510.00149): LeNet-300-100 and LeNet-5 on MNIST, pruned, shared, coded.

    python tests/benchmarks/deep_compression.py --data mnist.npz --minutes 60

The .npz file holds train_x, train_y, test_x and test_y. Each line: one network and seed. A network is trained, and from
there goes two ways of the same length: as it is (the baseline), and with ever more zeros and then with shared values.
Both have the same steps, images, losses and learning rates, and the network they started from as their teacher. Each
file is run in ONNX Runtime, the last one after coding and decoding. What is set here was chosen on 5,000 of the training
images; the test images are read once a line, when all files are there.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress.clustering import Cluster
from compress.fnz import decode_onnx, encode_onnx
from compress.sparsity import Sparsify, densities
from compress.train import BeforeStep
from compress.weighted import weighted_layers
from hw_profiles.host import open_session
from hw_profiles.onnx_write import write_onnx
from hw_profiles.trace import trace
from tests.benchmarks.lines import extend

MEAN, STD = 0.1307, 0.3081
HELD_BACK = 5_000
TEMPERATURE, TEACHERS_SHARE = 4.0, 0.7


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """Epochs of each part, the largest shift of an image in pixels, and what leaves."""

    dense: int
    sparse: int
    shared: int
    shift: int
    amounts: dict[str, float]
    clusters: dict[str, int]


COURSES = {
    "lenet-300-100": Course(
        dense=40, sparse=80, shared=20, shift=1,
        amounts={"fc1": 0.98, "fc2": 0.95, "fc3": 0.7}, clusters={"linear": 16},
    ),
    "lenet-5": Course(
        dense=10, sparse=24, shared=6, shift=1,
        amounts={"conv1": 0.4, "conv2": 0.88, "fc1": 0.985, "fc2": 0.85}, clusters={"conv": 16, "linear": 8},
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Images:
    """Pixels (N, 1, 28, 28) in 0..1 and labels."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def read_images(path: Path) -> dict[str, Images]:
    arrays = np.load(path)

    def part(name: str, chosen: slice | NDArray[np.int64]) -> Images:
        pixels = arrays[f"{name}_x"].reshape(-1, 1, 28, 28)[chosen].astype(np.float32) / 255
        return Images(torch.from_numpy(pixels), torch.from_numpy(arrays[f"{name}_y"].ravel()[chosen].astype(np.int64)))

    order = np.random.default_rng(0).permutation(len(arrays["train_y"]))
    return {
        "train": part("train", order[HELD_BACK:]),
        "val": part("train", order[:HELD_BACK]),
        "test": part("test", slice(None)),
    }


def network(case: str) -> nn.Module:
    """LeNet-300-100, or LeNet-5 as Caffe has it: 20 and 50 filters, 500 units, a ReLU behind these only."""
    if case == "lenet-300-100":
        layers: list[tuple[str, nn.Module]] = [
            ("flatten", nn.Flatten()),
            ("fc1", nn.Linear(784, 300)), ("relu1", nn.ReLU()),
            ("fc2", nn.Linear(300, 100)), ("relu2", nn.ReLU()),
            ("fc3", nn.Linear(100, 10)),
        ]  # fmt: skip
    else:
        layers = [
            ("conv1", nn.Conv2d(1, 20, 5)), ("pool1", nn.MaxPool2d(2)),
            ("conv2", nn.Conv2d(20, 50, 5)), ("pool2", nn.MaxPool2d(2)), ("flatten", nn.Flatten()),
            ("fc1", nn.Linear(800, 500)), ("relu1", nn.ReLU()),
            ("fc2", nn.Linear(500, 10)),
        ]  # fmt: skip
    return nn.Sequential(OrderedDict(layers))


@dataclass(kw_only=True)
class Training:
    """One part of a course; all of its parts and both ways differ in nothing but the epochs, rate and teacher."""

    images: Images
    epochs: int
    rate: float
    shift: int
    seed: int
    teacher: nn.Module | None = None
    batch_size: int = 128

    def __call__(self, model: nn.Module, before_step: BeforeStep) -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rate)
        generator = torch.Generator().manual_seed(self.seed)
        steps = len(self.images) // self.batch_size
        model.train()
        for step in range(self.epochs * steps):
            share = step / (self.epochs * steps)
            if step % steps == 0:
                order = torch.randperm(len(self.images), generator=generator)
            before_step(share)
            optimizer.param_groups[0]["lr"] = (
                self.rate * min(1.0, share / 0.03 + 0.02) * (1 + math.cos(math.pi * share)) / 2
            )
            chosen = order[step % steps * self.batch_size :][: self.batch_size]
            x = (shifted(self.images.pixels[chosen], self.shift, generator) - MEAN) / STD
            loss = self._loss(model(x), x, self.images.labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        model.eval()

    def _loss(self, logits: Tensor, x: Tensor, labels: Tensor) -> Tensor:
        if self.teacher is None:
            return F.cross_entropy(logits, labels, label_smoothing=0.05)
        with torch.no_grad():
            wanted = F.log_softmax(self.teacher(x) / TEMPERATURE, 1)
        said = F.log_softmax(logits / TEMPERATURE, 1)
        soft = F.kl_div(said, wanted, log_target=True, reduction="batchmean") * TEMPERATURE**2
        return TEACHERS_SHARE * soft + (1 - TEACHERS_SHARE) * F.cross_entropy(logits, labels)


def shifted(pixels: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Eighths of the batch moved by up to ``reach`` pixels each."""
    padded, moved = F.pad(pixels, (reach,) * 4), []
    for part in padded.chunk(8):
        down, right = torch.randint(0, 2 * reach + 1, (2,), generator=generator).tolist()
        moved.append(part[:, :, down : down + 28, right : right + 28])
    return torch.cat(moved)


def written(model: nn.Module) -> bytes:
    """The ONNX file."""
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    return write_onnx(trace(model, (1, 28, 28)), weights)


def wrong(file: bytes, images: Images) -> int:
    """How many images the file gets wrong in ONNX Runtime."""
    session = open_session(file)
    x = ((images.pixels - MEAN) / STD).numpy()
    name = session.get_inputs()[0].name
    logits = np.concatenate([session.run(None, {name: x[i : i + 500]})[0] for i in range(0, len(x), 500)])
    return int((logits.argmax(1) != images.labels.numpy()).sum())


def courses(case: str, seed: int, images: dict[str, Images]) -> dict[str, nn.Module]:
    """The baseline and the network after each part of the other way."""
    course = COURSES[case]
    torch.manual_seed(seed)
    start = network(case)
    learn = partial(Training, images=images["train"], shift=course.shift)
    learn(epochs=course.dense, rate=1e-3, seed=seed)(start, _nothing)
    teacher = copy.deepcopy(start)
    second = learn(epochs=course.sparse, rate=2e-3, seed=seed + 100, teacher=teacher)
    third = learn(epochs=course.shared, rate=1e-3, seed=seed + 200, teacher=teacher)
    baseline, pruned = copy.deepcopy(start), start
    second(baseline, _nothing)
    third(baseline, _nothing)
    Sparsify(amount=course.amounts).apply(pruned, weighted_layers(pruned), second)
    shared = copy.deepcopy(pruned)
    Cluster(clusters=course.clusters).apply(shared, weighted_layers(shared), third, seed=seed)
    return {"baseline": baseline, "pruned": pruned, "shared": shared}


def run(case: str, seed: int, data: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    started, images = time.perf_counter(), read_images(data)
    models = courses(case, seed, images)
    files = {name: written(model) for name, model in models.items()}
    coded = encode_onnx(files["shared"])
    files["coded"] = decode_onnx(coded)
    dense_bytes = 4 * sum(value.numel() for value in models["baseline"].state_dict().values())
    sizes = {
        "baseline": dense_bytes,
        "pruned": len(encode_onnx(files["pruned"])),
        "shared": counted_bytes(models["shared"]),
        "coded": len(coded),
    }
    course = COURSES[case]
    return {
        "epochs": course.dense + course.sparse + course.shared,
        "densities": {name: round(d, 4) for name, d in densities(weighted_layers(models["shared"])).items()},
        "clusters": course.clusters,
        "bytes": sizes,
        "ratio": round(dense_bytes / len(coded), 1),
        "val_wrong": {name: wrong(file, images["val"]) for name, file in files.items()},
        "val_images": len(images["val"]),
        "test_wrong": {name: wrong(file, images["test"]) for name, file in files.items()},
        "test_images": len(images["test"]),
        "minutes": round((time.perf_counter() - started) / 60, 1),
    }


def counted_bytes(model: nn.Module) -> int:
    """What shared weights take before entropy coding, as the paper counts: for each an index of its value and the
    distance from the one before (5 bits, 8 in convolutions, with fillers where it is longer), the values, the biases."""
    bits = 0
    for layer in weighted_layers(model).values():
        weight = layer.weight.detach().numpy().ravel()
        values, places = np.unique(weight[weight != 0]), np.flatnonzero(weight)
        gap_bits = 5 if isinstance(layer, nn.Linear) else 8
        fillers = int(((np.diff(places, prepend=-1) - 1) // 2**gap_bits).sum())
        bits += (len(places) + fillers) * (math.ceil(math.log2(len(values))) + gap_bits) + 32 * len(values)
        bits += 32 * layer.out_channels if isinstance(layer, nn.Conv2d) else 32 * layer.out_features
    return math.ceil(bits / 8)


def _nothing(share: float) -> None:
    """Nothing is masked."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="MNIST as .npz: train_x, train_y, test_x, test_y")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--case", choices=list(COURSES), action="append")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    cases = [(case, seed) for seed in range(given.seeds) for case in given.case or COURSES]
    extend("deep_compression", cases, partial(run, data=given.data), given.minutes)


if __name__ == "__main__":
    main()
