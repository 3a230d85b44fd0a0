"""Several teachers combined into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.argument_checks import is_number
from compress.training.teachers import Teacher
from hw_profiles.errors import InputError


class Ensemble:
    """A teacher whose softened output is the weighted mean of the softened outputs of several (1503.02531).

    ``weights``, one for each teacher, are taken as shares of their sum; without them all count alike.

    Raises:
        InputError: no teacher, or weights that are not one positive number for each.

    >>> import torch
    >>> both = Ensemble([lambda pixels: torch.zeros(len(pixels), 2), lambda pixels: torch.ones(len(pixels), 2)])
    >>> both(torch.zeros(3, 1, 8, 8)).softmax(1)[0]
    tensor([0.5000, 0.5000])
    """

    def __init__(self, teachers: Sequence[Teacher], weights: Sequence[float] | None = None) -> None:
        if not teachers:
            raise InputError("Ensemble.teachers must hold at least one teacher, got none")
        shares = (1.0,) * len(teachers) if weights is None else tuple(weights)
        if len(shares) != len(teachers) or not all(is_number(share, 0) for share in shares):
            raise InputError(f"Ensemble.weights must be {len(teachers)} numbers above 0, got {shares}")
        self.teachers = tuple(teachers)
        self.weights = shares

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits (N, K) of the mean of the outputs for (N, C, H, W) pixels in 0..1."""
        return self.at(pixels, 1.0)

    def at(self, pixels: Tensor, temperature: float) -> Tensor:
        """Logits that, divided by ``temperature``, give the mean of the outputs softened by it."""
        return mean_softened([teacher(pixels).clone() for teacher in self.teachers], self.weights, temperature)


def wanted_logits(teacher: Teacher, pixels: Tensor, temperature: float) -> Tensor:
    """What a teacher, or several, wants a student to say at this temperature."""
    if isinstance(teacher, Ensemble):
        return teacher.at(pixels, temperature)
    return teacher(pixels).clone()  # what inference mode made cannot be differentiated through


def mean_softened(logits: Sequence[Tensor], weights: Sequence[float], temperature: float) -> Tensor:
    """Logits whose softened output is the weighted mean of the softened outputs of several (Hinton et al., 1503.02531).

    Each (N, K); the weights are taken as shares of their sum.

    >>> both = mean_softened([torch.tensor([[0.0, 0.0]]), torch.tensor([[99.0, 0.0]])], [1, 1], 1.0)
    >>> both.softmax(1)
    tensor([[0.7500, 0.2500]])
    """
    shares = torch.tensor(weights, dtype=torch.float32) / sum(weights)
    log_outputs = torch.stack([F.log_softmax(z / temperature, dim=1) for z in logits])
    mean = torch.logsumexp(log_outputs + shares.log().view(-1, 1, 1), dim=0)
    return mean * temperature
