"""The published ImageNet accuracies of timm's pretrained models."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "imagenet_accuracies.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedAccuracy:
    """What timm's authors measured of one model at one image size: a row of ``results/results-imagenet.csv``.

    ``model`` is timm's name with the tag of the weights, ``top1`` the share 0..1 of the 50,000 validation images of
    ImageNet that the float32 network classifies right at ``image_size`` pixels.
    """

    model: str
    image_size: int
    top1: float
    params_millions: float

    @property
    def architecture(self) -> str:
        """The name without the tag of the weights."""
        return self.model.partition(".")[0]


@cache
def published_accuracies() -> tuple[PublishedAccuracy, ...]:
    """All rows of the table, the most accurate first. Some models are in it at several image sizes.

    >>> best = published_accuracies()[0]
    >>> best.image_size, best.top1
    (448, 0.90056)
    """
    with TABLE.open(newline="") as file:
        rows = [
            PublishedAccuracy(
                model=row["model"],
                image_size=int(row["img_size"]),
                top1=round(float(row["top1"]) / 100, 5),
                params_millions=float(row["params_millions"]),
            )
            for row in csv.DictReader(file)
        ]
    return tuple(sorted(rows, key=lambda row: (-row.top1, row.image_size, row.model)))
