"""Compares an int8 file with the float network: divergence, agreement, accuracy lost."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from compress.quantization.int8.activation_stats import Floats, logits


@dataclass(frozen=True, kw_only=True, slots=True)
class Fidelity:
    """``divergence``: the mean Kullback-Leibler divergence of its class probabilities from the float network's, in
    nats; ``agreement``: the share of images that both give one class; ``points_lost``: percentage points of accuracy.
    """

    divergence: float
    agreement: float
    points_lost: float

    def to_dict(self) -> dict[str, float]:
        """JSON types."""
        return asdict(self)


class FidelityEvaluator:
    """Compares files with a float one on (N, C, H, W) images and, where they are known, their labels."""

    def __init__(self, float_file: bytes, images: Floats, labels: NDArray[np.int64] | None = None) -> None:
        self.images = images
        self.labels = labels
        self.expected = _log_softmax(logits(float_file, images))

    def __call__(self, data: bytes) -> Fidelity:
        """The fidelity of a file."""
        got = _log_softmax(logits(data, self.images))
        expected, labels = self.expected, self.expected.argmax(1) if self.labels is None else self.labels
        right = [float(np.mean(each.argmax(1) == labels)) for each in (expected, got)]
        return Fidelity(
            divergence=float(np.mean(np.sum(np.exp(expected) * (expected - got), axis=1))),
            agreement=float(np.mean(got.argmax(1) == expected.argmax(1))),
            points_lost=100 * (right[0] - right[1]),
        )


def _log_softmax(values: Floats) -> NDArray[np.float64]:
    shifted = values.astype(np.float64) - values.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
