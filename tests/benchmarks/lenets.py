"""LeNet-300-100 and LeNet-5, MNIST, and how they are trained in the benchmark of Deep Compression."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from compress.training.loop import BeforeStep

HELD_BACK = 5_000
_MEAN, _STD = np.float32(0.1307), np.float32(0.3081)
_BACKGROUND = float(-_MEAN / _STD)
_PARTS = 8  # of a batch, each moved as a whole
_TEMPERATURE, _TEACHERS_SHARE = 4.0, 0.7
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Images:
    """Normalized pixels (N, 1, 28, 28) and labels."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def read_images(path: Path) -> dict[str, Images]:
    """``"train"``, ``"val"`` (5,000 of the training images) and ``"test"``."""
    arrays = np.load(path)

    def part(name: str, chosen: slice | NDArray[np.int64]) -> Images:
        pixels = arrays[f"{name}_x"].reshape(-1, 1, 28, 28)[chosen].astype(np.float32) / 255
        pixels = (pixels - _MEAN) / _STD
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
    """One part of a course: AdamW, a cosine, bfloat16, parts of each batch moved by up to ``reach`` pixels.

    ``taught``: a teacher's logits for every move of every image, see :func:`logits_of_moves`.
    """

    images: Images
    epochs: int
    rate: float
    reach: int
    seed: int
    taught: Tensor | None = None
    decay: float = 0.0
    batch_size: int = 256

    def __call__(self, model: nn.Module, before_step: BeforeStep) -> None:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.rate, weight_decay=self.decay, fused=True)
        generator = torch.Generator().manual_seed(self.seed)
        steps = len(self.images) // self.batch_size
        order = torch.arange(0)
        model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        for step in range(self.epochs * steps):
            share = step / (self.epochs * steps)
            if step % steps == 0:
                order = torch.randperm(len(self.images), generator=generator)
            before_step(share)
            warm = min(1.0, share / 0.03 + 0.02)
            optimizer.param_groups[0]["lr"] = self.rate * warm * (1 + math.cos(math.pi * share)) / 2
            loss = self._loss(model, order[step % steps * self.batch_size :][: self.batch_size], generator)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        model.eval()

    def _loss(self, model: nn.Module, chosen: Tensor, generator: torch.Generator) -> Tensor:
        moves = torch.randint(0, (2 * self.reach + 1) ** 2, (_PARTS,), generator=generator)
        labels = self.images.labels[chosen]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(moved(self.images.pixels[chosen], moves.tolist(), self.reach))
        if self.taught is None:
            return F.cross_entropy(logits.float(), labels, label_smoothing=0.05)
        of_each = moves.repeat_interleave(self.batch_size // _PARTS)
        wanted = F.log_softmax(self.taught[of_each, chosen] / _TEMPERATURE, 1)
        said = F.log_softmax(logits.float() / _TEMPERATURE, 1)
        soft = F.kl_div(said, wanted, log_target=True, reduction="batchmean") * _TEMPERATURE**2
        return _TEACHERS_SHARE * soft + (1 - _TEACHERS_SHARE) * F.cross_entropy(logits.float(), labels)


def moved(pixels: Tensor, moves: Sequence[int], reach: int) -> Tensor:
    """As many parts of (N, C, H, W) as there are ``moves``, each moved by one of the ``(2 * reach + 1) ** 2`` moves."""
    if not reach:
        return pixels
    height, width = pixels.shape[2:]
    parts = []
    padded = F.pad(pixels, (reach,) * 4, value=_BACKGROUND)
    for part, move in zip(padded.chunk(len(moves)), moves, strict=True):
        down, right = divmod(move, 2 * reach + 1)
        parts.append(part[:, :, down : down + height, right : right + width])
    return torch.cat(parts)


@torch.no_grad()
def logits_of_moves(model: nn.Module, images: Images, reach: int) -> Tensor:
    """(moves, N, classes): what a teacher says, once for all epochs of all networks that it teaches."""
    said = []
    for move in range((2 * reach + 1) ** 2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            parts = [model(moved(x, [move], reach)) for x in images.pixels.split(_AT_ONCE)]
        said.append(torch.cat(parts).float())
    return torch.stack(said)
