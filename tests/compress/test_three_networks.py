"""Networks that only one of several twins of an algorithm took: DenseNet, a module of two inputs, an unknown operation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import compress
from compress import MixedPrecision, Prune, Quantize
from compress.networks.onnx_export import onnx_bytes
from tests.goldens.networks import Dense, SumsSoFar, exported

RANDOM = np.random.default_rng(0)
MINMAX = Quantize(calibration="minmax", equalize="none", bias_correction=True)
IMAGES = RANDOM.standard_normal((24, 3, 32, 32)).astype(np.float32)


class TwoTowers(nn.Module):
    """Of an image and some numbers, which its ``forward`` takes in this order."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.deep, self.flat = nn.Conv2d(16, 16, 3, 2), nn.Linear(5, 16)
        self.classifier = nn.Linear(16, 4)

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        seen = torch.relu(self.deep(self.stem(image))).mean((2, 3))
        return self.classifier(seen + torch.relu(self.flat(numbers)))


def around(layer: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), layer, nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """Of each the model and its inputs."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("unknown") / "sums.onnx"
    path.write_bytes(exported(around(SumsSoFar())))
    two = {"numbers": RANDOM.standard_normal((24, 5)).astype(np.float32), "image": IMAGES}
    return {"dense": (Dense().eval(), IMAGES), "two inputs": (TwoTowers().eval(), two), "unknown": (path, IMAGES)}


_SHORT = ("int8", "mixed 4", "sparsify")
Algorithm = Callable[[Any, Any], Any]
ALGORITHMS: dict[str, Algorithm] = {
    "int8": lambda model, data: compress.quantize(model, data, MINMAX),
    "mixed": lambda model, data: compress.quantize(model, data, MixedPrecision(images=8)),
    "int4": lambda model, data: compress.quantize(model, data, precision="int4"),
    "mixed 4": lambda model, data: compress.quantize(model, data, MixedPrecision(bits=4, images=8)),
    "fp16": lambda model, data: compress.quantize(model, data, precision="fp16"),
    "sparsify": lambda model, data: compress.sparsify(model, data, compress.Sparsify(amount=0.3, recipe=None)),
    "cluster": lambda model, data: compress.cluster(model, data, compress.Cluster(clusters=32, recipe=None)),
}


@pytest.mark.parametrize("network", ["dense", "two inputs", "unknown"])
@pytest.mark.parametrize(
    "algorithm", [pytest.param(name, marks=() if name in _SHORT else pytest.mark.slow) for name in ALGORITHMS]
)
def test_each_goes_through_what_trains_nothing(
    algorithm: str, network: str, networks: dict[str, tuple[Any, Any]], tmp_path: Path
) -> None:
    model, data = networks[network]
    after = ALGORITHMS[algorithm](model, data)
    assert after.metrics["val_snr_db"] > 8
    compress.encode(after, tmp_path / "m.fnz")
    compress.decode(tmp_path / "m.fnz", tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == onnx_bytes(after)


@pytest.mark.parametrize("network", ["dense", "two inputs"])
def test_modules_are_pruned(network: str, networks: dict[str, tuple[Any, Any]]) -> None:
    model, data = networks[network]
    after = compress.prune(model, data, Prune(amount=0.5, criterion="l1", recipe=None), device="stm32f746")
    weights = [sum(value.numel() for value in each.parameters()) for each in (model, after.model())]
    assert weights[1] < 0.8 * weights[0]
    assert after.metrics["val_snr_db"] > -10


def test_the_file_of_two_inputs_reads_them_by_their_names(networks: dict[str, tuple[Any, Any]]) -> None:
    model, data = networks["two inputs"]
    session = onnxruntime.InferenceSession(onnx_bytes(compress.quantize(model, data, MINMAX)))
    got = session.run(None, data)[0]
    with torch.inference_mode():
        expected = model(**{name: torch.from_numpy(value) for name, value in data.items()}).numpy()
    assert np.square(got - expected).sum() < 0.01 * np.square(expected).sum()
