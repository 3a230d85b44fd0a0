"""Compares an int8 file with the float network: divergence, agreement, accuracy lost."""

from __future__ import annotations

from copy import copy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.network_inputs import Inputs
from compress.quantization.int8.activation_stats import Floats, logits


@dataclass(frozen=True, kw_only=True, slots=True)
class Fidelity:
    """``divergence``: the mean Kullback-Leibler divergence of its class probabilities from the float network's, in
    nats; ``agreement``: the share of images that both give one class; ``points_lost``: percentage points of accuracy,
    without labels of agreement. Of a network whose output is not (N, classes), ``divergence`` is the power of the error
    by that of the output, nothing agrees (None) and no points are lost.
    """

    divergence: float
    agreement: float | None
    points_lost: float

    def to_dict(self) -> dict[str, float | None]:
        """JSON types."""
        return asdict(self)


class FidelityEvaluator:
    """Compares files with a float one on (N, C, H, W) images and, where they are known, their labels."""

    def __init__(self, float_file: bytes, images: Inputs, labels: NDArray[np.int64] | None = None) -> None:
        self.images = images
        self.labels = labels
        self.outputs = logits(float_file, images)
        self.expected = _log_softmax(self.outputs) if tells_classes(self.outputs) else None

    def first(self, count: int) -> FidelityEvaluator:
        """The same for the first images alone."""
        if count >= len(self.images):
            return self
        part = copy(self)
        rows = count * (len(self.outputs) // len(self.images))  # a call may make several
        part.images, part.outputs = self.images[:count], self.outputs[:rows]
        part.labels = None if self.labels is None else self.labels[:count]
        part.expected = None if self.expected is None else self.expected[:rows]
        return part

    def __call__(self, data: bytes) -> Fidelity:
        """The fidelity of a file."""
        outputs = logits(data, self.images)
        if self.expected is None:
            return Fidelity(divergence=_relative_error(self.outputs, outputs), agreement=None, points_lost=0.0)
        got = _log_softmax(outputs)
        expected, labels = self.expected, self.expected.argmax(1) if self.labels is None else self.labels
        right = [float(np.mean(each.argmax(1) == labels)) for each in (expected, got)]
        return Fidelity(
            divergence=float(np.mean(_kullback_leibler(expected, got))),
            agreement=float(np.mean(got.argmax(1) == expected.argmax(1))),
            points_lost=100 * (right[0] - right[1]),
        )


def tells_classes(outputs: NDArray[Any]) -> bool:
    """Whether outputs are one number for each of several classes.

    >>> tells_classes(np.zeros((5, 10))), tells_classes(np.zeros((5, 1))), tells_classes(np.zeros((5, 10, 4, 4)))
    (True, False, False)
    """
    return outputs.ndim == 2 and outputs.shape[1] > 1


def _relative_error(expected: NDArray[Any], got: NDArray[Any]) -> float:
    exact = expected.astype(np.float64)
    return float(np.square(exact - got).sum() / max(np.square(exact).sum(), 1e-30))


def _kullback_leibler(expected: NDArray[Any], got: NDArray[Any]) -> NDArray[Any]:
    """(N,) in nats, of log probabilities (N, classes). Nearly equal ones are compared too: a network with tiny outputs
    has differences d of 1e-9, whose divergence d²/2 would be lost in ``expected - got``, a sum of both signs."""
    p, difference = np.exp(expected), got - expected
    near = np.abs(difference) < 1
    small = np.where(near, difference, 0)
    terms = np.where(near, p * (np.expm1(small) - small), np.exp(got) - p * (1 + difference))
    result: NDArray[np.float64] = terms.sum(axis=1)
    return result


def _log_softmax(values: Floats) -> NDArray[np.float64]:
    shifted = values.astype(np.float64) - values.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
