"""The accuracy that one file loses against another on the same images, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from hw_profiles.errors import InputError

ESTIMATE = 0.5
"""The confidence at which the upper end of an interval is the estimate itself."""
_USUAL_CHANGE = 0.01  # of the predictions of a retrained network: so many become wrong, and as many right
_ONE_DEVIATION = float(norm.cdf(1.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyChange:
    """Of ``images``, so many were ``lost``: right before and wrong now, or ``gained``: the other way round.

    Raises:
        InputError: no images, or more changes than images.

    >>> change = AccuracyChange(lost=12, gained=4, images=1000)
    >>> change.points_lost, round(change.upper(0.9), 2), round(change.lower(0.9), 2)
    (0.8, 1.34, 0.26)
    """

    lost: int
    gained: int
    images: int

    def __post_init__(self) -> None:
        if self.images < 1 or self.lost < 0 or self.gained < 0 or self.lost + self.gained > self.images:
            raise InputError(
                f"AccuracyChange: lost and gained must be parts of at least one image, got {self.lost} and "
                f"{self.gained} of {self.images}"
            )

    @classmethod
    def between(cls, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> AccuracyChange:
        """From which of the same images, (N,), were right before and are right now."""
        return cls(lost=int((before & ~after).sum()), gained=int((after & ~before).sum()), images=len(before))

    @property
    def points_lost(self) -> float:
        """Percentage points of accuracy; below 0 where it rose."""
        return 100 * (self.lost - self.gained) / self.images

    def upper(self, confidence: float) -> float:
        """The points that are not exceeded with this one-sided confidence: the upper end of the adjusted Wald interval
        for paired proportions (Bonett and Price, 10.3102/1076998611411915). At 0.5 it is the estimate."""
        if confidence == ESTIMATE:
            return self.points_lost
        estimate, error = self._adjusted()
        return 100 * (estimate + float(norm.ppf(confidence)) * error)

    def lower(self, confidence: float) -> float:
        """The lower end of the same interval."""
        if confidence == ESTIMATE:
            return self.points_lost
        estimate, error = self._adjusted()
        return 100 * (estimate - float(norm.ppf(confidence)) * error)

    def _adjusted(self) -> tuple[float, float]:
        total = self.images + 2
        lost, gained = (self.lost + 1) / total, (self.gained + 1) / total
        return lost - gained, math.sqrt((lost + gained - (lost - gained) ** 2) / total)

    def to_dict(self, confidence: float) -> dict[str, Any]:
        """JSON types; ``low`` and ``high`` in points."""
        return {
            "lost": self.lost,
            "gained": self.gained,
            "images": self.images,
            "points": self.points_lost,
            "low": self.lower(confidence),
            "high": self.upper(confidence),
            "confidence": confidence,
        }


def confidence_on(images: int, allowed: float, confidence: float) -> float:
    """The confidence with which so many images can be asked whether at most ``allowed`` points are lost.

    A retrained network changes some predictions without being worse. Where the interval of one that loses one percent
    of the images and gains as many would reach above ``allowed``, the images are too few, and the confidence is the one
    at which it does not: at 0.5 the estimate decides.

    >>> [round(confidence_on(images, 1.0, 0.9), 2) for images in (5000, 216, 150)]
    [0.9, 0.81, 0.73]
    """
    changed = round(_USUAL_CHANGE * images)
    usual = AccuracyChange(lost=changed, gained=changed, images=images)
    error = usual.upper(_ONE_DEVIATION)
    return min(confidence, max(ESTIMATE, float(norm.cdf(allowed / error))))
