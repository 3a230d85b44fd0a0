"""Calibration: the range of each activation, chosen from the histogram of its values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import InputError
from hw_profiles.network.activations import activation
from hw_profiles.network.quantization import ABSORBED

Range = tuple[float, float]
Floats = NDArray[np.float32]

LEVELS = 256
_BINS = 4096
_SAMPLED = 131_072  # values of one batch that are counted; its extremes are exact
_OUTERMOST = 1e-4
SMALLEST_SCALE = 1e-20
"""Of an activation: its product with the scale of a weight is still a float32 of full precision."""
_SCALE_OF_ZEROS = 1e-8
_NOTHING = 1e-30
_SHRINK_STEPS = 64
_ENTROPY_STEPS = 128


class Histogram:
    """How often the numbers of a stream lie in each of at most 4096 bins of one width, and the stream's extremes.

    One edge is zero and exact zeros are counted apart, because 8 bits say them exactly. Where the stream leaves the
    bins, their width doubles and pairs of them are joined, so that nothing is counted twice or forgotten.

    >>> histogram = Histogram()
    >>> histogram.add(np.float32([0, 1, 2])); histogram.add(np.float32([-6, 0]))
    >>> histogram.low, histogram.high, histogram.zeros, int(histogram.counts.sum())
    (-6.0, 2.0, 2, 3)
    """

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0
        self.width, self.first = 0.0, 0
        self.counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self.zeros = 0

    def add(self, values: Floats) -> None:
        """Count numbers of any shape.

        Raises:
            InputError: one of them is not finite.
        """
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(f"activations must be finite, got {low}..{high}")
        self.low, self.high = min(low, self.low), max(high, self.high)
        if self.high - self.low < _NOTHING:
            self.zeros += values.size
            return
        self._widen()
        flat = values.reshape(-1)[:: math.ceil(values.size / _SAMPLED) | 1]  # odd, so that no column is met always
        zeros = flat.size - int(np.count_nonzero(flat))
        places = np.floor(flat / np.float32(self.width)).astype(np.int64) - self.first
        counted = np.bincount(np.clip(places, 0, len(self.counts) - 1), minlength=len(self.counts))
        counted[-self.first] -= zeros
        self.counts += counted
        self.zeros += zeros

    @property
    def edges(self) -> NDArray[np.float64]:
        """The edges of the bins."""
        return np.asarray((self.first + np.arange(len(self.counts) + 1)) * self.width, np.float64)

    def _widen(self) -> None:
        old, first = self.counts, self.first
        doublings = 0
        if not self.width:
            self.width = (self.high - self.low) / (_BINS - 2)
        while math.floor(self.high / self.width) - math.floor(self.low / self.width) >= _BINS:
            self.width, doublings = 2 * self.width, doublings + 1
        self.first = math.floor(self.low / self.width)
        last = math.floor(self.high / self.width)
        places = ((first + np.arange(len(old))) >> doublings) - self.first
        self.counts = np.zeros(last - self.first + 1, np.int64)
        np.add.at(self.counts, places, old)


def calibrated_range(histogram: Histogram, calibration: str, function: str = "none") -> Range:
    """The range that a calibration method gives, in which zero lies.

    ``"minmax"``: the extremes. ``"percentile"``: without the outermost 0.01 % on either side. ``"entropy"``: the
    smallest divergence of the rounded distribution from the true one (Migacz, "8-bit inference with TensorRT", GTC
    2017). ``"mse"``: the smallest mean squared error of rounding and saturating. ``function`` is what alone reads the
    tensor, ``"none"`` where there is more or something else: nothing is spent on values that it does not tell apart,
    and for ``"mse"`` the error behind it counts.

    >>> histogram = Histogram()
    >>> histogram.add(np.linspace(-9, 5, 1000, dtype=np.float32))
    >>> calibrated_range(histogram, "minmax", "hard_swish")
    (-3.0, 5.0)
    """
    if not histogram.counts.size:
        return 0.0, 0.0
    low, high = CALIBRATIONS[calibration](histogram, function)
    least, most = _distinguished(histogram, function)
    return min(max(low, least), 0.0), max(min(high, most), 0.0)


def scale_and_zero_point(low: float, high: float, *, signed: bool = False) -> tuple[float, int]:
    """8-bit numbers for a range, widened so that zero is one of them; unsigned ones unless ``signed``.

    Raises:
        InputError: the range is not finite.

    >>> scale_and_zero_point(-1.0, 3.0)
    (0.01568627450980392, 64)
    >>> scale_and_zero_point(-1.0, 3.0, signed=True)
    (0.01568627450980392, -64)
    """
    if not np.isfinite([low, high]).all():
        raise InputError(f"the range of an activation must be finite, got {low}..{high}")
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / (LEVELS - 1), SMALLEST_SCALE) if low < high else _SCALE_OF_ZEROS
    return scale, round(-low / scale) - signed * LEVELS // 2


def _distinguished(histogram: Histogram, function: str) -> Range:
    least, most = activation(function).distinguished
    return max(least, histogram.low), min(most, histogram.high)


def _minmax(histogram: Histogram, function: str) -> Range:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram, function: str) -> Range:
    """Each bin's numbers lie evenly in it."""
    counts = histogram.counts.astype(np.float64)
    counts[-histogram.first] += histogram.zeros
    below = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    low, high = np.interp((_OUTERMOST, 1 - _OUTERMOST), below, histogram.edges)
    return max(float(low), histogram.low), min(float(high), histogram.high)


def _mse(histogram: Histogram, function: str) -> Range:
    """The upper end is searched, then the lower, twice."""
    filled = histogram.counts > 0
    values = ((histogram.edges[:-1] + histogram.edges[1:]) / 2)[filled].astype(np.float32)
    counts = histogram.counts[filled] / histogram.counts.sum()
    compute = activation(function).compute
    apply = np.asarray if compute is None or function in ABSORBED else compute  # saturation is all that those do
    wanted = apply(values)
    least, most = low, high = _distinguished(histogram, function)
    shares = np.linspace(1 / _SHRINK_STEPS, 1, _SHRINK_STEPS)

    def error(low: float, high: float) -> float:
        scale = (high - low) / (LEVELS - 1)
        if scale <= 0:
            return math.inf
        zero = round(-low / scale)
        rounded = (np.clip(np.rint(values / scale) + zero, 0, LEVELS - 1) - zero) * scale
        return float(np.sum(counts * (apply(rounded.astype(np.float32)) - wanted) ** 2))

    for _ in range(2):
        high = min((float(share * most) for share in shares), key=lambda end: error(low, end))
        low = min((float(share * least) for share in shares), key=lambda end: error(end, high))
    return low, high


def _entropy(histogram: Histogram, function: str) -> Range:
    """One threshold for the magnitude on both sides of zero."""
    zero, bins = -histogram.first, len(histogram.counts)
    reach = max(zero, bins - zero)
    fewest = min(max(LEVELS // 2, LEVELS - min(zero, bins - zero)), reach)
    thresholds = range(fewest, reach + 1, max(1, (reach - fewest) // _ENTROPY_STEPS))
    best = min(thresholds, key=lambda k: _divergence(histogram.counts, *_span(zero, bins, k)))
    edge = best * histogram.width
    return max(histogram.low, -edge), min(histogram.high, edge)


def _span(zero: int, bins: int, threshold: int) -> tuple[int, int]:
    return max(0, zero - threshold), min(bins, zero + threshold)


def _divergence(counts: NDArray[np.int64], start: int, stop: int) -> float:
    """Of the counts within the bins, joined to 256 levels and spread again, from all counts moved into them."""
    inside = counts[start:stop].astype(np.float64)
    moved = inside.copy()
    moved[0] += counts[:start].sum()
    moved[-1] += counts[stop:].sum()
    places = np.arange(len(inside)) * LEVELS // len(inside)
    filled = inside > 0
    sums = np.bincount(places, weights=inside, minlength=LEVELS)
    shares = sums / np.maximum(np.bincount(places, weights=filled, minlength=LEVELS), 1)
    spread = np.where(filled, shares[places], 0.0)
    given = moved > 0
    if not spread.sum():
        return math.inf
    true, said = moved[given] / moved.sum(), np.maximum(spread[given] / spread.sum(), 1e-10)
    return float(np.sum(true * np.log(true / said)))


CALIBRATIONS: dict[str, Callable[[Histogram, str], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}


ACTIVATIONS = ("unsigned", "signed")
