"""Networks trained on a few images of each class: errors on all other images by learning rate and augmentation.

    python tests/benchmarks/few_images.py --data signs --each 16 --epochs 120 --seeds 1 --minutes 30

ResNet-8 at 48 × 48 in bfloat16 with one thread; the seed draws the images that are trained on. The learning rate is that
of a batch of 32; 0.025 is 0.1 lowered in proportion from batches of 128.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress.data.dataset import Dataset, Split, load_data
from compress.training.augmentation import AUGMENTATIONS
from compress.training.evaluation import predict
from compress.training.loop import train
from compress.training.recipe import Recipe
from search_spaces import build_model, preset
from tests.benchmarks.lines import extend, latest_by_case, read
from tests.benchmarks.markdown import commits, table

NAME, SIDE, BATCH = "few_images", 48, 32
RATES = (0.025, 0.1)


def divided(data: Dataset, each: int, seed: int) -> Dataset:
    """So many images of each class to train on, and all others to test."""
    splits = data.distinct_splits
    images, labels = (np.concatenate([getattr(split, name) for split in splits]) for name in ("images", "labels"))
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(np.flatnonzero(labels == label))[:each] for label in np.unique(labels)]
    chosen = np.sort(np.concatenate(drawn))
    others = np.setdiff1d(np.arange(len(labels)), chosen)
    return replace(data, train=Split(images[chosen], labels[chosen]), test=Split(images[others], labels[others]))


def trained(data: Dataset, rate: float, augmentation: str, epochs: float, seed: int) -> dict[str, Any]:
    """Errors after one training."""
    shape = data.preprocessing.input_shape
    model = build_model(preset("resnet8", input_shape=shape, num_classes=data.num_classes), seed=seed)
    recipe = Recipe(
        epochs=epochs, batch_size=BATCH, learning_rate=rate * 128 / BATCH, bfloat16=True, augmentation=augmentation
    )
    training = train(model, data, recipe, seed=seed)
    wrong = int((predict(model, data.test, data.preprocessing) != data.test.labels).sum())
    return {"errors": wrong, "test_images": len(data.test), "images": len(data.train), "steps": training.steps}


def few_images() -> str:
    """The section of docs/benchmarks.md; nothing without lines."""
    rows = []
    for case, lines in sorted(latest_by_case(NAME).items()):
        wrong, images = (sum(line[name] for line in lines) for name in ("errors", "test_images"))
        rows.append((*case.split("/"), len(lines), f"{wrong} of {images}", f"{wrong / images:.1%}"))
    if not rows:
        return ""
    head = ("images", "of each class", "epochs", "learning rate", "augmentation", "seeds", "errors", "share")
    return (
        "## Few images\n\n`python tests/benchmarks/few_images.py --data FOLDER --each 16`: ResNet-8 at 48 pixels, one "
        f"thread, tested on all photographs that it was not trained on (commit {commits(read(NAME))}).\n\n"
        f"{table(head, rows)}"
    )


def cases(folder: Path, each: int, epochs: float, seeds: Sequence[int]) -> list[tuple[str, int]]:
    """The names of what is trained, with their seeds."""
    ways = [(rate, augmentation) for rate in RATES for augmentation in AUGMENTATIONS]
    return [(f"{folder.name}/{each}/{epochs:g}/{rate:g}/{kind}", seed) for seed in seeds for rate, kind in ways]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder of images, one folder for each class")
    parser.add_argument("--each", type=int, default=16, help="images of each class (default: 16)")
    parser.add_argument("--epochs", type=float, default=120)
    parser.add_argument("--seeds", type=int, default=1, help="how often images are drawn (default: once)")
    parser.add_argument("--minutes", type=float, default=60)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(given.data, seed=0).resized(SIDE, SIDE)

    def run(case: str, seed: int) -> dict[str, Any]:
        rate, augmentation = case.rsplit("/", 2)[1:]
        return trained(divided(data, given.each, seed), float(rate), augmentation, given.epochs, seed)

    extend(NAME, cases(given.data, given.each, given.epochs, range(given.seeds)), run, given.minutes)


if __name__ == "__main__":
    main()
