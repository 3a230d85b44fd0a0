"""Histograms of a stream, and the ranges that calibration takes from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from compress.quantization.int8.calibration import CALIBRATIONS, Histogram, calibrated_range, scale_and_zero_point

FUNCTIONS = {
    "relu": torch.nn.functional.relu,
    "relu6": torch.nn.functional.relu6,
    "hard_swish": torch.nn.functional.hardswish,
    "hard_sigmoid": torch.nn.functional.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
}


def stream(seed: int = 0) -> list[np.ndarray]:
    """Batches that grow: each leaves the range of the ones before it."""
    generator = np.random.default_rng(seed)
    return [(generator.laplace(size=(8, 50)) * 1.7**i).astype(np.float32) for i in range(6)]


def histogram_of(values: list[np.ndarray]) -> Histogram:
    histogram = Histogram()
    for batch in values:
        histogram.add(batch)
    return histogram


def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """8 bits as torch simulates them."""
    scale, zero_point = scale_and_zero_point(low, high)
    return torch.fake_quantize_per_tensor_affine(torch.from_numpy(values), scale, zero_point, 0, 255).numpy()


def test_a_stream_is_counted_as_if_it_had_come_at_once() -> None:
    batches = [*stream(), np.zeros((3, 7), np.float32)]
    histogram = histogram_of(batches)
    joined = np.concatenate([batch.reshape(-1) for batch in batches])
    assert (histogram.low, histogram.high) == (joined.min(), joined.max())
    assert histogram.zeros == 21
    expected, _ = np.histogram(joined[joined != 0].astype(np.float64), histogram.edges)
    moved = np.abs(expected - histogram.counts).sum()
    assert moved <= 4  # numbers that float32 puts on the other side of an edge
    assert 2000 <= len(histogram.counts) <= 4096


def test_large_batches_are_counted_in_part_but_keep_their_extremes() -> None:
    values = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    values[123_457] = 40.0
    histogram = histogram_of([values])
    assert histogram.high == 40.0
    assert histogram.counts.sum() < 150_000
    low, high = calibrated_range(histogram, "percentile")
    assert (low, high) == (pytest.approx(-3.72, abs=0.25), pytest.approx(3.72, abs=0.25))  # the normal quantile


def test_percentiles_are_those_of_numpy() -> None:
    batches = stream(1)
    joined = np.concatenate([batch.reshape(-1) for batch in batches])
    expected = np.percentile(joined, (0.01, 99.99), method="inverted_cdf")
    width = histogram_of(batches).width
    assert calibrated_range(histogram_of(batches), "percentile") == pytest.approx(expected, abs=2 * width)


@pytest.mark.parametrize("function", ["none", "hard_swish", "sigmoid"])
def test_the_error_that_mse_finds_is_the_smallest_of_a_fine_search(function: str) -> None:
    batches = list(np.random.default_rng(2).laplace(size=(6, 50_000)).astype(np.float32))
    joined = np.concatenate([batch.reshape(-1) for batch in batches])
    of = FUNCTIONS.get(function, lambda x: x)

    def error(low: float, high: float) -> float:
        after = of(torch.from_numpy(rounded(joined, low, high))) - of(torch.from_numpy(joined))
        return float(after.double().square().mean())

    grid = np.linspace(0.1, 1, 13)
    least = min(error(float(a * joined.min()), float(b * joined.max())) for a in grid for b in grid)
    found = calibrated_range(histogram_of(batches), "mse", function)
    assert error(*found) < 1.05 * least
    assert error(*found) < 0.8 * error(float(joined.min()), float(joined.max()))


def test_the_threshold_is_that_of_least_divergence() -> None:
    """Against the published description, worked out bin by bin for every threshold."""
    generator = np.random.default_rng(3)
    values = np.concatenate([generator.standard_normal(100_000), generator.uniform(-30, 30, 30)]).astype(np.float32)
    histogram = histogram_of([values])
    counts, zero = histogram.counts, -histogram.first

    def divergence(threshold: int) -> float:
        start, stop = max(0, zero - threshold), min(len(counts), zero + threshold)
        inside = counts[start:stop]
        reference = inside.astype(float)
        reference[0] += counts[:start].sum()
        reference[-1] += counts[stop:].sum()
        candidate = np.zeros(len(inside))
        for level in np.array_split(np.arange(len(inside)), 256):
            filled = [i for i in level if inside[i] > 0]
            candidate[filled] = inside[level].sum() / max(len(filled), 1)
        return float(entropy(reference, np.maximum(candidate, 1e-10 * candidate.sum())))

    everything = [(divergence(threshold), threshold) for threshold in range(140, len(counts) // 2, 8)]
    low, high = calibrated_range(histogram, "entropy")
    assert low == pytest.approx(-high, rel=0.02)
    assert divergence(round(high / histogram.width)) < 1.1 * min(everything)[0]
    assert 3 < high < 12  # the outliers at up to 30 are given up


def test_entropy_looks_at_one_side_where_there_is_only_one() -> None:
    generator = np.random.default_rng(4)
    values = np.maximum(generator.standard_normal(200_000), 0).astype(np.float32)
    values[:20] = 40.0
    low, high = calibrated_range(histogram_of([values]), "entropy")
    assert low == 0.0
    assert 3 < high < 12


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_what_is_cut_off_makes_no_difference_behind_the_function(function: str, calibration: str) -> None:
    """A network may put anything into an activation; the range need only hold what the activation tells apart."""
    values = np.linspace(-20, 20, 20_001, dtype=np.float32)
    low, high = calibrated_range(histogram_of([values]), "minmax", function)
    assert high - low < 40
    inside = torch.from_numpy(np.clip(values, low, high))
    difference = FUNCTIONS[function](inside) - FUNCTIONS[function](torch.from_numpy(values))
    assert float(difference.abs().max()) < 5e-4
    narrower = calibrated_range(histogram_of([values]), calibration, function)
    assert low <= narrower[0] <= 0 <= narrower[1] <= high


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_a_tensor_of_zeros_or_of_one_sign_has_a_range(calibration: str) -> None:
    for values in (np.zeros(8), np.full(8, 3.0), np.linspace(-5, -4, 5000), np.float64([1e-30, 2e-30])):
        low, high = calibrated_range(histogram_of([values.astype(np.float32)]), calibration)
        assert low <= 0 <= high
        scale, zero_point = scale_and_zero_point(low, high)
        assert scale > 0
        assert 0 <= zero_point <= 255


def test_numbers_that_are_not_finite_are_refused() -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="activations must be finite, got"):
            Histogram().add(np.float32([0.0, value]))
    with pytest.raises(ValueError, match="must be finite"):
        scale_and_zero_point(float("nan"), 1.0)


def test_signed_integers_stand_for_the_same_numbers_as_unsigned_ones() -> None:
    for low, high in ((0.0, 6.0), (-3.0, 1.0), (-2.0, 0.0)):
        scale, unsigned = scale_and_zero_point(low, high)
        assert scale_and_zero_point(low, high, signed=True) == (scale, unsigned - 128)
        assert (0 - unsigned) * scale == pytest.approx(low, abs=scale / 2)
        assert (255 - unsigned) * scale == pytest.approx(high, abs=scale / 2)


def test_small_numbers_have_small_steps() -> None:
    """A network with random weights may make nothing above 1e-8; a tensor of zeros alone needs some scale."""
    assert scale_and_zero_point(0.0, 2.55e-9)[0] == pytest.approx(1e-11)
    assert scale_and_zero_point(0.0, 0.0)[0] > 0
