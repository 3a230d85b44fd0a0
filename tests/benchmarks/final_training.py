"""ResNet-8's test accuracy after so many minutes: fitnas's training loop beside a plain PyTorch recipe.

    python tests/benchmarks/final_training.py --data FOLDER|FILE.npz --train-minutes 5 10 20 --minutes 75

Both start from the same random weights, train on the same images for the same time on the clock, and are tested once on
the same test images. The plain recipe is the usual one: a ``DataLoader`` with torchvision's transforms (random crop with a
padding of an eighth of the side, flip, normalization) in batches of 128, SGD with Nesterov momentum 0.9, a learning rate of
0.1 that a cosine over the time lowers to zero, weight decay 5e-4, float32.

Two changes of the training loop can be tried by ``--ways``: ``averaged`` tests an exponential moving average of the weights
(decay 0.999), ``growing`` trains at half of the resolution in the first third of the time and at three quarters in the second.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import Dataset, Recipe, load_data
from compress.training.evaluation import accuracy, predict
from compress.training.loop import train
from compress.training.recipe import from_random_weights
from search_spaces import build_model, preset
from tests.benchmarks.lines import extend, latest_by_case, read
from tests.benchmarks.markdown import commits, table

NAME = "final_training"
BATCH_SIZE, LEARNING_RATE = 128, 0.1
MANY_EPOCHS = 10_000.0
EMA_DECAY = 0.999
WAYS = ("fitnas", "plain", "averaged", "growing")


class Augmented(TorchDataset[tuple[torch.Tensor, int]]):
    """Training images through torchvision's transforms."""

    def __init__(self, data: Dataset) -> None:
        side = data.preprocessing.input_shape[-1]
        steps = [transforms.ToPILImage(), transforms.RandomCrop(side, padding=side // 8)]
        steps += [transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        steps += [transforms.Normalize(data.preprocessing.mean, data.preprocessing.std)]
        self.images, self.labels, self.transform = data.train.images, data.train.labels, transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def plain(model: torch.nn.Module, data: Dataset, seconds: float) -> float:
    """Train as a user would; the epochs that ran."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loader = DataLoader(Augmented(data), batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
    began, steps = time.perf_counter(), 0
    model.train()
    while True:
        for pixels, labels in loader:
            share = (time.perf_counter() - began) / seconds
            if share >= 1:
                return steps / len(loader)
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * share))
            optimizer.zero_grad()
            F.cross_entropy(model(pixels), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps += 1


class Growing(torch.nn.Module):
    """The network, given smaller images early in its training."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.scale = network, 1.0

    def set_share(self, share: float) -> None:
        """How much of the training is over."""
        self.scale = 0.5 if share < 1 / 3 else 0.75 if share < 2 / 3 else 1.0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.training and self.scale < 1:
            pixels = F.interpolate(pixels, scale_factor=self.scale, mode="bilinear", antialias=True)
        logits: torch.Tensor = self.network(pixels)
        return logits


def ours(way: str, model: torch.nn.Module, data: Dataset, seconds: float, seed: int) -> tuple[torch.nn.Module, float]:
    """The network trained by fitnas's loop, with the change of this name, and the epochs that ran."""
    recipe = from_random_weights(Recipe(epochs=MANY_EPOCHS, seconds=seconds, bfloat16=None), len(data.train))
    if way == "growing":
        growing = Growing(model)
        return growing, train(growing, data, recipe, seed=seed, before_step=growing.set_share).epochs
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    step = (lambda share: average.update_parameters(model)) if way == "averaged" else None
    epochs = train(model, data, recipe, seed=seed, before_step=step).epochs
    return (average.module.eval() if way == "averaged" else model), epochs


def run(data: Dataset, case: str, seed: int) -> dict[str, Any]:
    """Train one way for the minutes of the case, and test once."""
    minutes, way = case.split(" min / ")
    seconds = 60 * float(minutes)
    torch.manual_seed(seed)
    arch = preset("resnet8", input_shape=data.preprocessing.input_shape, num_classes=data.num_classes)
    model = build_model(arch, seed=seed)
    began = time.perf_counter()
    if way == "plain":
        epochs = plain(model, data, seconds)
    else:
        model, epochs = ours(way, model, data, seconds, seed)
    took = time.perf_counter() - began
    return {
        "test_accuracy": round(accuracy(predict(model, data.test, data.preprocessing), data.test), 5),
        "test_images": len(data.test),
        "epochs": round(epochs, 2),
        "seconds": round(took, 1),
    }


def final_training() -> str:
    """The section of docs/benchmarks.md; nothing without lines."""
    lines = read(NAME)
    if not lines:
        return ""
    rows = [
        (case, len(each), *(f"{sum(line[name] for line in each) / len(each):{form}}" for name, form in SHOWN))
        for case, each in sorted(latest_by_case(NAME).items(), key=lambda pair: (float(pair[0].split()[0]), pair[0]))
    ]
    shown = table(("training / by", "seeds", "test accuracy", "epochs", "seconds"), rows)
    return (
        "## Training one network\n\n`python tests/benchmarks/final_training.py --data FOLDER`: ResNet-8 on CIFAR-10 as JPEG, "
        "the same random weights, images and time for fitnas's training loop and for a plain PyTorch recipe (DataLoader, "
        f"torchvision's transforms, SGD, cosine, float32); means over seeds (commit {commits(lines)}).\n\n{shown}"
    )


SHOWN = (("test_accuracy", ".2%"), ("epochs", ".1f"), ("seconds", ".1f"))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="a folder of images, or an .npz")
    parser.add_argument("--train-minutes", type=float, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS[:2])
    parser.add_argument("--minutes", type=float, default=75)
    given = parser.parse_args()
    data = load_data(given.data)
    cases = [
        (f"{minutes:g} min / {way}", seed)
        for seed in range(given.seeds)
        for minutes in given.train_minutes
        for way in given.ways
    ]
    extend(NAME, cases, lambda case, seed: run(data, case, seed), given.minutes)


if __name__ == "__main__":
    main()
