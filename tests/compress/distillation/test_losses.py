"""What a student is told by a teacher, against sums written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compress.distillation.ensemble import mean_softened
from compress.distillation.losses import (
    attention_distance,
    decoupled_divergences,
    hint_distance,
    soft_target_divergence,
)


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(6, 5, generator=generator), 3 * torch.randn(6, 5, generator=generator)


def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(z) / np.exp(z).sum()


def divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)))


def test_soft_targets_are_the_divergence_of_softened_outputs(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, teacher = logits
    rows = zip(student.double().numpy(), teacher.double().numpy(), strict=True)
    expected = np.mean([16 * divergence(softmax(t / 4), softmax(s / 4)) for s, t in rows])
    assert float(soft_target_divergence(student, teacher, 4.0)) == pytest.approx(expected, rel=1e-4)


def test_decoupled_parts_are_those_of_the_paper_and_make_up_the_whole(
    logits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    student, teacher = logits
    for i, label in enumerate([0, 4, 2, 2, 1, 3]):
        s, t = softmax(student[i].double().numpy() / 4), softmax(teacher[i].double().numpy() / 4)
        others = np.arange(5) != label
        target, rest = decoupled_divergences(student[i : i + 1], teacher[i : i + 1], torch.tensor([label]), 4.0)
        two = divergence(np.array([t[label], 1 - t[label]]), np.array([s[label], 1 - s[label]]))
        assert float(target) == pytest.approx(16 * two, rel=1e-3, abs=1e-5)
        among = divergence(t[others] / t[others].sum(), s[others] / s[others].sum())
        assert float(rest) == pytest.approx(16 * among, rel=1e-3, abs=1e-5)
        whole = soft_target_divergence(student[i : i + 1], teacher[i : i + 1], 4.0)
        assert float(target) + (1 - t[label]) * float(rest) == pytest.approx(float(whole), rel=1e-3)


def test_attention_is_where_squares_are_large_whatever_the_channels_and_the_size() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 5, 8, 8, generator=generator)

    def maps(x: NDArray[np.float64]) -> NDArray[np.float64]:
        energy = (x**2).sum(1).reshape(len(x), -1)
        return energy / np.sqrt((energy**2).sum(1, keepdims=True))

    wide = teacher.double().numpy().reshape(2, 5, 4, 2, 4, 2).mean((3, 5))
    expected = np.mean((maps(student.double().numpy()) - maps(wide)) ** 2)
    assert float(attention_distance(student, teacher)) == pytest.approx(expected, rel=1e-4)
    assert float(attention_distance(teacher, student)) == pytest.approx(expected, rel=1e-4)


def test_hints_are_half_the_mean_square() -> None:
    one, other = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    expected = 0.5 * np.mean((one.numpy() - other.numpy()) ** 2)
    assert float(hint_distance(one, other)) == pytest.approx(expected, rel=1e-5)


def test_several_teachers_are_the_weighted_mean_of_their_softened_outputs(
    logits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    merged = mean_softened(logits, [3, 1], 2.0).double().numpy()
    for i in range(6):
        first, second = (softmax(z[i].double().numpy() / 2) for z in logits)
        np.testing.assert_allclose(softmax(merged[i] / 2), 0.75 * first + 0.25 * second, rtol=1e-4)
