"""A teacher that is asked once about each view of an image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from compress.data.dataset import Dataset, Split
from compress.data.preprocessing import Preprocessing
from compress.distillation.guided_training import GuidedTraining
from compress.training.loop import Recipe
from compress.training.teachers import RememberingTeacher


class Asked:
    """A teacher that counts."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, pixels: Tensor) -> Tensor:
        """Three numbers that differ from image to image."""
        self.images += len(pixels)
        return 10 * pixels.mean((2, 3))


def data() -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    split = Split(images, np.arange(24) % 3)
    return Dataset(
        name="d", train=split, val=split, test=split,
        preprocessing=Preprocessing(channels=3, sizes=((8, 8),), class_names=("a", "b", "c"), mean=(0.5,) * 3, std=(0.5,) * 3),
    )  # fmt: skip


def trained(teacher: object) -> Tensor:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    recipe = Recipe(epochs=6, batch_size=8, views=2)
    GuidedTraining(data=data(), recipe=recipe, teacher=teacher)(model)  # type: ignore[arg-type]
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_it_changes_nothing_but_how_often_the_teacher_is_asked() -> None:
    often, once = Asked(), Asked()
    assert torch.equal(trained(often), trained(RememberingTeacher(once)))
    assert often.images == 6 * 24
    assert 24 < once.images <= 2 * 24  # two views of an image may happen to be the same


def test_it_remembers_no_more_than_it_may() -> None:
    asked = Asked()
    teacher = RememberingTeacher(asked, most_bytes=300)  # two answers
    pixels = torch.rand(4, 3, 8, 8)
    first = teacher(pixels)
    assert torch.equal(teacher(pixels), first)
    assert asked.images == 4 + 2


def test_one_image_twice_in_a_batch_and_known_ones_among_new_ones() -> None:
    asked = Asked()
    teacher = RememberingTeacher(asked)
    pixels = torch.rand(3, 3, 8, 8)
    teacher(pixels[:1])
    mixed = torch.stack([pixels[1], pixels[0], pixels[1], pixels[2]]).contiguous(memory_format=torch.channels_last)
    assert torch.equal(teacher(mixed), 10 * mixed.mean((2, 3)))
