"""Other validation images out of the same data."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.data.dataset import Dataset, load_data
from compress.data.folds import fold


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


def as_set(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_folds_have_no_validation_image_in_common_and_lose_none(digits: Dataset) -> None:
    folds = [fold(digits, number) for number in range(4)]
    assert folds[0] is digits
    seen = [as_set(each.val.images) for each in folds]
    everything = as_set(digits.train.images) | as_set(digits.val.images)
    for number, each in enumerate(folds):
        assert np.array_equal(np.bincount(each.val.labels), np.bincount(digits.val.labels))
        assert not seen[number] & as_set(each.train.images)
        assert seen[number] | as_set(each.train.images) == everything
        assert all(not seen[number] & seen[other] for other in range(number))
        assert each.test is digits.test


def test_labels_stay_with_their_images(digits: Dataset) -> None:
    known = {
        image.tobytes(): label
        for split in (digits.train, digits.val)
        for image, label in zip(split.images, split.labels, strict=True)
    }
    other = fold(digits, 2)
    for split in (other.train, other.val):
        assert all(known[image.tobytes()] == label for image, label in zip(split.images, split.labels, strict=True))


def test_after_the_last_image_of_a_class_the_first_ones_come_again(digits: Dataset) -> None:
    far = fold(digits, 1000)
    assert len(far.val) == len(digits.val)
    assert len(as_set(far.val.images)) == len(far.val)


def test_validation_images_of_the_user_and_groups_stay(digits: Dataset, tmp_path: Path) -> None:
    grouped = replace(digits, facts={**digits.facts, "groups": {"train": 3, "val": 1, "test": 1}})
    assert fold(grouped, 1) is grouped
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    chosen = load_data(tmp_path)
    assert fold(chosen, 1) is chosen
    shutil.rmtree(tmp_path / "val")
    drawn = load_data(tmp_path)
    assert fold(drawn, 1) is not drawn
