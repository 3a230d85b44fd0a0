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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress.clustering.cluster import Cluster
from compress.clustering.kmeans_1d import nearest, shared_values
from compress.fnz import decode_onnx, describe, encode_onnx, sizes
from compress.fnz.codes.codebook import encode_codebook, find_codebook
from compress.fnz.codes.element_kinds import Kind
from compress.networks.weight_layers import WeightLayer, weighted_layers
from compress.sparsity.sparsify import Amount, Sparsify
from hw_profiles.onnx_io.session import open_session
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.torch_io.trace import trace
from tests.benchmarks.lenets import Images, Training, logits_of_moves, network, read_images
from tests.benchmarks.lines import extend

_FLOAT = Kind(width=4, form="float")


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """Epochs of each part, how far images move (pixels), what leaves, and how many values remain."""

    dense: int
    sparse: int
    shared: int
    reach: int
    amounts: Amount
    clusters: dict[str, int]
    biases: int = 32
    decay: float = 0.0

    @property
    def epochs(self) -> int:
        """Of either way."""
        return self.dense + self.sparse + self.shared


COURSES = {
    "lenet-300-100": Course(
        dense=15, sparse=40, shared=4, reach=0, decay=0.3, amounts=0.889, clusters={"linear": 8}
    ),
    "lenet-5": Course(
        dense=3, sparse=8, shared=2, reach=1, clusters={"conv": 16, "linear": 8},
        amounts={"conv1": 0.1, "conv2": 0.4, "fc1": 0.925, "fc2": 0.5},
    ),
}  # fmt: skip


def courses(case: str, seed: int, images: Images) -> dict[str, nn.Module]:
    """The baseline and the network after each part of the other way."""
    course = COURSES[case]
    torch.manual_seed(seed)
    start = network(case)
    learn = partial(Training, images=images, reach=course.reach)
    learn(epochs=course.dense, rate=1e-3, seed=seed)(start, _nothing)
    taught = logits_of_moves(start, images, course.reach)
    second = learn(epochs=course.sparse, rate=2e-3, seed=seed + 100, taught=taught, decay=course.decay)
    third = learn(epochs=course.shared, rate=1e-3, seed=seed + 200, taught=taught)
    baseline, pruned = copy.deepcopy(start), start
    second(baseline, _nothing)
    third(baseline, _nothing)
    Sparsify(amount=course.amounts).apply(pruned, weighted_layers(pruned), second)
    shared = copy.deepcopy(pruned)
    share_biases(shared, course.biases)
    Cluster(clusters=course.clusters).apply(shared, weighted_layers(shared), third, seed=seed)
    return {"baseline": baseline, "pruned": pruned, "shared": shared}


def share_biases(model: nn.Module, count: int) -> None:
    """Let all biases together take so many values, and stay as they are from then on."""
    layers = weighted_layers(model).values()
    values = shared_values(np.concatenate([_bias(layer) for layer in layers]), count)
    for layer in layers:
        chosen = values[nearest(_bias(layer), values)].astype(np.float32)
        layer.bias = nn.Parameter(torch.from_numpy(chosen), requires_grad=False)


def _bias(layer: WeightLayer) -> np.ndarray:
    assert layer.bias is not None
    return layer.bias.detach().numpy()


def written(model: nn.Module) -> bytes:
    """The ONNX file."""
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    return write_onnx(trace(model, (1, 28, 28)), weights)


def wrong(file: bytes, images: Images) -> int:
    """How many images the file gets wrong in ONNX Runtime."""
    session = open_session(file)
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: x.numpy()})[0] for x in images.pixels.split(500)]
    return int((np.concatenate(parts).argmax(1) != images.labels.numpy()).sum())


def run(case: str, seed: int, data: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # what Adam remembers of weights that left shrinks to numbers ten times as slow
    started, images = time.process_time(), read_images(data)
    models = courses(case, seed, images["train"])
    files = {name: written(model) for name, model in models.items()}
    coded = encode_onnx(files["shared"])
    files["coded"] = decode_onnx(coded)
    dense_bytes = 4 * sum(value.numel() for value in models["baseline"].state_dict().values())
    packed = sizes(files["shared"])
    return {
        "epochs": COURSES[case].epochs,
        "layers": layer_sizes(models["shared"], coded),
        "bytes": {
            "baseline": dense_bytes,
            "pruned": counted_bytes(models["pruned"], shared=False),
            "shared": counted_bytes(models["shared"], shared=True),
            "coded": len(coded),
            "gzip": packed["gzip"],
            "xz": packed["xz"],
        },
        "ratio": round(dense_bytes / len(coded), 1),
        **{f"{part}_wrong": {name: wrong(file, images[part]) for name, file in files.items()} for part in _JUDGED},
        **{f"{part}_images": len(images[part]) for part in _JUDGED},
        "cpu_minutes": round((time.process_time() - started) / 60, 1),
    }


_JUDGED = "val", "test"


def counted_bytes(model: nn.Module, *, shared: bool) -> int:
    """What a file takes before entropy coding, as the paper counts: see :func:`counted_bits`; the biases, too."""
    layers = weighted_layers(model).values()
    biases = np.concatenate([_bias(layer) for layer in layers])
    values = len(np.unique(biases))
    bits = len(biases) * _index_bits(values) + 32 * values if shared else 32 * len(biases)
    return math.ceil((bits + sum(sum(counted_bits(layer, shared=shared)) for layer in layers)) / 8)


def counted_bits(layer: WeightLayer, *, shared: bool) -> tuple[int, int]:
    """Bits of the values and of the places of a layer's weights: 32, or a number of its value and the values once; and
    for each the distance from the one before (5 bits, 8 in convolutions), with fillers where it is longer."""
    weight = layer.weight.detach().numpy().ravel()
    values, places = np.unique(weight[weight != 0]), np.flatnonzero(weight)
    gap_bits = 5 if isinstance(layer, nn.Linear) else 8
    stored = len(places) + int(((np.diff(places, prepend=-1) - 1) // 2**gap_bits).sum())
    return stored * _index_bits(len(values)) + 32 * len(values) if shared else 32 * stored, stored * gap_bits


def _index_bits(values: int) -> int:
    return max(1, math.ceil(math.log2(values)))


def layer_sizes(model: nn.Module, coded: bytes) -> dict[str, dict[str, int]]:
    """Of each layer's weights: how many, how many are not zero, how many values they take; bits of values and places as
    the paper counts them and as they are in the file."""
    of_tensor = {row.name: 8 * row.bytes for row in describe(coded)}
    found = {}
    for name, layer in weighted_layers(model).items():
        weight = layer.weight.detach().numpy().ravel()
        book = find_codebook(weight[weight != 0].view(np.uint32), _FLOAT)
        assert book is not None
        values, places = counted_bits(layer, shared=True)
        coded_values = 8 * len(encode_codebook(book))
        found[name] = {
            "weights": weight.size,
            "kept": int(np.count_nonzero(weight)),
            "values": len(book.values),
            "value_bits": values,
            "place_bits": places,
            "coded_value_bits": coded_values,
            "coded_place_bits": of_tensor[f"{name}.weight"] - coded_values,
        }
    return found


def _nothing(share: float) -> None:
    """Nothing is masked."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="MNIST as .npz: train_x, train_y, test_x, test_y")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--case", choices=list(COURSES), action="append")
    parser.add_argument("--seed", type=int, action="append", help="0, 1 and 2 by default")
    given = parser.parse_args()
    cases = [(case, seed) for seed in given.seed or range(3) for case in given.case or COURSES]
    extend("deep_compression", cases, partial(run, data=given.data), given.minutes)


if __name__ == "__main__":
    main()
