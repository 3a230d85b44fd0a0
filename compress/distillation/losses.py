"""Distillation losses as pure functions of logits and feature maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_target_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² × the divergence of softened outputs from the teacher's, mean of the batch (Hinton et al., 1503.02531).

    Both are logits (N, K).

    >>> float(soft_target_divergence(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), 4.0))
    0.0
    """
    wanted = F.log_softmax(teacher / temperature, dim=1)
    predicted = F.log_softmax(student / temperature, dim=1)
    return F.kl_div(predicted, wanted, reduction="batchmean", log_target=True) * temperature**2


def decoupled_divergences(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Both parts of the softened divergence, each times T², mean of the batch (Zhao et al., 2203.08679).

    The first is of how likely the label is against all other classes together, the second of the other classes among
    themselves. Logits (N, K), labels (N,). The divergence of one image is the first and, times the teacher's
    probability of the other classes, the second.

    >>> target, others = decoupled_divergences(
    ...     torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([[5.0, 2.0, 1.0]]), torch.tensor([0]), 1.0)
    >>> bool(target > 0), float(others)
    (True, 0.0)
    """
    said_target, said_others = _decoupled(student / temperature, labels)
    wanted_target, wanted_others = _decoupled(teacher / temperature, labels)

    def divergence(predicted: Tensor, wanted: Tensor) -> Tensor:
        return F.kl_div(predicted, wanted, reduction="batchmean", log_target=True) * temperature**2

    return divergence(said_target, wanted_target), divergence(said_others, wanted_others)


def _decoupled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of the probabilities of the label and the rest (N, 2), and of the rest among themselves (N, K - 1)."""
    is_label = F.one_hot(labels, logits.shape[1]).bool()
    others = logits[~is_label].view(len(logits), -1)
    sums = torch.stack([logits[is_label], others.logsumexp(1)], dim=1)
    return F.log_softmax(sums, dim=1), F.log_softmax(others, dim=1)


def attention_map(features: Tensor) -> Tensor:
    """Where a feature map (N, C, H, W) is large: the sum of squares over channels at length 1, (N, H × W).

    >>> attention_map(torch.tensor([[[[3.0, 0.0]], [[0.0, 2.0]]]]) ** 0.5)
    tensor([[0.8321, 0.5547]])
    """
    return F.normalize(features.square().sum(1).flatten(1), dim=1)


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference of attention maps (Zagoruyko and Komodakis, 1612.03928).

    Feature maps (N, C, H, W) of any numbers of channels; the larger one is averaged down to the size of the smaller.

    >>> x = torch.rand(2, 3, 8, 8)
    >>> round(float(attention_distance(x, 5 * x)), 6)
    0.0
    """
    size = smaller_size(student, teacher)
    maps = [attention_map(pooled(features, size)) for features in (student, teacher)]
    return F.mse_loss(maps[0], maps[1])


def hint_distance(guided: Tensor, hint: Tensor) -> Tensor:
    """Half the mean squared difference of a regressor's output and the teacher's features (Romero et al., 1412.6550).

    Both (N, C, H, W).

    >>> float(hint_distance(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)))
    0.5
    """
    return 0.5 * F.mse_loss(guided, hint)


def smaller_size(one: Tensor, other: Tensor) -> tuple[int, int]:
    """(height, width) that both feature maps have at least."""
    return min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])


def pooled(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Feature maps averaged down to (height, width)."""
    if tuple(features.shape[2:]) == size:
        return features
    return F.adaptive_avg_pool2d(features, size)
