"""Batches: the same pixels as an index of each would give, from any number of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.data.dataset import Split
from compress.data.preprocessing import Preprocessing
from compress.training.augmentation import LIGHT, drawn
from compress.training.batches import Batches


def batches(images: Any, labels: Any = None, **options: Any) -> Batches:
    split = Split(images, np.arange(len(images)) if labels is None else labels)
    channels = images.shape[3]
    record = Preprocessing(
        channels=channels, sizes=(images.shape[1:3],), mean=(0.4, 0.5, 0.6)[:channels], std=(0.2, 0.3, 0.25)[:channels],
        class_names=("a", "b"),
    )  # fmt: skip
    given = {"batch_size": 4, "seed": 1, "flip": True, "layout": torch.channels_last, **options}
    return Batches(split, record, place=torch.device("cpu"), **given)


def random_images(count: int, height: int = 16, width: int = 24, channels: int = 3) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_pixel_is_one_of_its_image_at_the_shifted_place(channels: int, flip: bool) -> None:
    images = torch.from_numpy(random_images(64, channels=channels)).permute(0, 3, 1, 2)
    found = drawn(LIGHT, tuple(images.shape), torch.Generator().manual_seed(3), flip=flip).applied(images)
    generator = torch.Generator().manual_seed(3)
    places = [
        (torch.arange(size) + torch.randint(-(size // 8), size // 8 + 1, (64, 1), generator=generator)).clamp(
            0, size - 1
        )
        for size in (16, 24)
    ]
    mirrored = torch.rand(64, generator=generator) < (0.5 if flip else 0)
    rows, columns = places[0], torch.where(mirrored[:, None], places[1].flip(1), places[1])
    for image, its_rows, its_columns, seen in zip(images, rows, columns, found, strict=True):
        assert torch.equal(seen, image[:, its_rows][:, :, its_columns])
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_images_are_normalized_channel_by_channel(layout: torch.memory_format) -> None:
    made = batches(random_images(8), layout=layout)
    pixels, _ = made.at(0)
    before = pixels.clone()
    found = made.normalized(pixels)
    for channel, (mean, std) in enumerate([(0.4, 0.2), (0.5, 0.3), (0.6, 0.25)]):
        torch.testing.assert_close(found[:, channel], (before[:, channel] - mean) / std)
    assert torch.equal(pixels, before)  # a teacher is asked about them afterwards
    assert found.is_contiguous(memory_format=layout)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    images = random_images(20)
    one, other = batches(images), batches(images)
    for _ in (other.at(step) for step in (3, 0, 9, 7)):
        pass
    for step in (7, 2):
        assert all(torch.equal(a, b) for a, b in zip(one.at(step), other.at(step), strict=True))
    assert not torch.equal(one.at(2)[0], batches(images, seed=2).at(2)[0])


@pytest.mark.parametrize("views", [None, 2])
def test_strongly_augmented_images_depend_on_seed_and_step_alone(views: int | None) -> None:
    images = random_images(8)
    one, other = (batches(images, augmentation="strong", views=views) for _ in range(2))
    for _ in (other.at(step) for step in (3, 0, 9)):
        pass
    assert all(torch.equal(a, b) for a, b in zip(one.at(5), other.at(5), strict=True))
    assert one.at(5)[0].is_contiguous(memory_format=torch.channels_last)
    first, third = ({int(label): pixels for step in (epoch, epoch + 1) for pixels, label in zip(*one.at(step), strict=True)}
                    for epoch in (0, 4))  # fmt: skip
    assert all(torch.equal(first[label], third[label]) for label in range(8)) == (views == 2)


def test_images_are_read_from_a_file_batch_by_batch(tmp_path: Path) -> None:
    images = random_images(20)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    made, usual = batches(mapped), batches(images)
    assert made.images is mapped
    assert torch.equal(made.at(11)[0], usual.at(11)[0])


@pytest.mark.parametrize(("count", "size", "per_epoch"), [(1, 1, 1), (5, 4, 1), (3, 3, 1), (8, 4, 2)])
def test_few_images_make_whole_batches(count: int, size: int, per_epoch: int) -> None:
    made = batches(random_images(count))
    assert (made.batch_size, made.per_epoch) == (size, per_epoch)
    for step in range(3):
        pixels, labels = made.at(step)
        assert len(pixels) == len(labels) == len(set(labels.tolist())) == size


def test_with_views_each_image_is_augmented_in_so_many_ways_again_and_again() -> None:
    split = Split(np.arange(12 * 16 * 16 * 3, dtype=np.uint32).astype(np.uint8).reshape(12, 16, 16, 3), np.arange(12))
    preprocessing = Preprocessing(
        channels=3, sizes=((16, 16),), class_names=tuple(map(str, range(12))), mean=(0.5,) * 3, std=(0.5,) * 3
    )
    how: dict[str, Any] = {"batch_size": 4, "seed": 3, "flip": True, "layout": torch.channels_last}
    batches = Batches(split, preprocessing, **how, place=torch.device("cpu"), views=2)
    epochs = []
    for epoch in range(4):
        found = {}
        for step in range(3):
            pixels, labels = batches.at(3 * epoch + step)
            found |= dict(zip(labels.tolist(), pixels, strict=True))
        epochs.append(torch.stack([found[label] for label in range(12)]))
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[1], epochs[3])
    assert not torch.equal(epochs[0], epochs[1])
    again = Batches(split, preprocessing, **how, place=torch.device("cpu"), views=2)
    assert torch.equal(again.at(7)[0], batches.at(7)[0])
