"""A teacher computes in the number format of the training that it leads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from compress import Dataset, Preprocessing, Recipe
from compress.data.dataset import Split
from compress.distillation.distill import soft_target_loss
from compress.training.loop import train
from compress.training.teachers import ModuleTeacher, beats_chance


class Noting(nn.Module):
    """A classifier that notes in which format its layer computes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 2)
        self.seen: set[torch.dtype] = set()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        self.seen.add(logits.dtype)
        return logits


@pytest.fixture
def data() -> Dataset:
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (32, 8, 8, 3), np.uint8), rng.integers(0, 2, 32))
    record = Preprocessing(channels=3, sizes=((8, 8),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=("a", "b"))
    return Dataset(name="noise", train=split, val=split, test=split, preprocessing=record)


@pytest.mark.parametrize("bfloat16", [True, False])
@pytest.mark.parametrize("own", [None, True, False])
def test_teacher_follows_the_training_unless_it_has_a_format_of_its_own(
    data: Dataset, bfloat16: bool, own: bool | None
) -> None:
    student, teacher = Noting(), Noting()
    loss = soft_target_loss(ModuleTeacher(teacher, data.preprocessing, bfloat16=own), 4.0, 0.7)
    train(student, data, Recipe(epochs=2, bfloat16=bfloat16), loss=loss)
    formats = {True: {torch.bfloat16}, False: {torch.float32}}
    assert student.seen == formats[bfloat16]
    assert teacher.seen == formats[bfloat16 if own is None else own]


def test_teacher_that_leads_no_training_computes_in_float32(data: Dataset) -> None:
    teacher = Noting()
    ModuleTeacher(teacher, data.preprocessing)(torch.rand(2, 3, 8, 8))
    assert teacher.seen == {torch.float32}


def labeled(counts: tuple[int, ...]) -> Split:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Split(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)


@pytest.mark.parametrize(
    ("counts", "accuracy", "better"),
    [
        ((50, 50), 0.7, True),  # 1.5 times the chance of two classes would be 0.75
        ((50, 50), 0.52, False),
        ((5, 5), 0.6, False),  # ten images cannot tell it from chance
        ((90, 10), 0.9, False),  # the most frequent class is right as often
        ((90, 10), 0.97, True),
        ((10,) * 10, 0.13, False),
        ((10,) * 10, 0.2, True),
    ],
)
def test_a_teacher_is_better_than_chance_where_a_binomial_test_says_so(
    counts: tuple[int, ...], accuracy: float, better: bool
) -> None:
    split = labeled(counts)
    assert beats_chance(accuracy, split) == better
    share = max(counts) / sum(counts)
    right = round(accuracy * len(split))
    assert (binomtest(right, len(split), share, alternative="greater").pvalue < 0.05) == better
