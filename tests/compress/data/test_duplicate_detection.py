"""Images that stand, nearly unchanged, in training and test images."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from compress.data import duplicate_detection
from compress.data.dataset import load_data
from compress.data.duplicate_detection import difference_hashes, near_duplicates


def scene(seed: int, side: int = 64) -> Image.Image:
    """Smooth shapes with detail, as photos have them."""
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    coarse = Image.fromarray(noise[:6, :6]).resize((side, side), Image.Resampling.BICUBIC)
    return Image.blend(coarse, Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1)), 0.1)


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


def found(images: np.ndarray, others: np.ndarray) -> list[int]:
    return near_duplicates(images, others, difference_hashes(images), difference_hashes(others)).tolist()


def test_copies_are_found_and_other_images_are_not() -> None:
    others = [scene(i) for i in range(300)]
    compressed = io.BytesIO()
    others[17].save(compressed, "JPEG", quality=60)
    copies = [
        others[3],
        Image.open(compressed),
        others[40].resize((48, 48), Image.Resampling.BILINEAR).resize((64, 64), Image.Resampling.BILINEAR),
        ImageEnhance.Brightness(others[99]).enhance(1.02),
        scene(1000),
        scene(1001),
    ]
    assert found(pixels(copies), pixels(others)) == [3, 17, 40, 99, -1, -1]


def test_hashes_a_few_bits_apart_are_found_as_by_comparing_all(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    others = generator.integers(0, 2**64, 3000, dtype=np.uint64)
    flips = np.bitwise_or.reduce(np.uint64(1) << generator.integers(0, 64, (500, 6), dtype=np.uint64), axis=1)
    hashes = others[:500] ^ flips
    distances = np.bitwise_count(hashes[:, None] ^ others[None])
    expected = np.argwhere(distances <= 5)
    query, other = duplicate_detection._candidates(hashes, others)
    assert len(expected) > 20
    assert np.array_equal(np.stack([query, other], axis=1), expected)


def test_blank_images_are_duplicates_and_do_not_explode() -> None:
    blank = np.full((20_000, 4, 4, 1), 255, np.uint8)
    tracemalloc.start()
    assert min(found(blank[:4000], blank[4000:])) >= 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # all 64 million pairs would be many times that


def test_plain_images_with_different_marks_are_not_the_same() -> None:
    plain = np.full((2, 64, 64, 1), 250, np.uint8)
    plain[0, 10:20, 10:20] = 100
    plain[1, 40:50, 40:50] = 100
    assert found(plain[:1], plain[1:]) == [-1]


def test_few_digits_are_reported() -> None:
    facts = load_data("digits").facts["near_duplicates"]
    assert facts["val"] + facts["test"] <= 10


def test_a_copy_of_a_training_image_among_the_test_images_is_reported(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("test", 100)):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(10):
                scene(start + i + 1000 * ord(label)).save(tmp_path / split / label / f"{i}.png")
    scene(4 + 1000 * ord("a")).save(tmp_path / "test" / "a" / "leak.jpg", quality=90)
    scene(4 + 1000 * ord("a")).save(tmp_path / "train" / "a" / "4b.png")
    data = load_data(str(tmp_path))
    facts = data.facts["near_duplicates"]
    assert "test/a/leak.jpg" in data.test_names
    assert facts["test"] == 1
    test_pairs = [pair for pair in facts["pairs"] if pair[0].startswith("test")]
    assert test_pairs[0][0] == "test/a/leak.jpg"
    assert test_pairs[0][1] in ("train/a/4.png", "train/a/4b.png")


def test_a_copy_of_a_validation_image_among_the_test_images_is_reported(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("val", 100), ("test", 200)):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(10):
                scene(start + i + 1000 * ord(label)).save(tmp_path / split / label / f"{i}.png")
    scene(103 + 1000 * ord("b")).save(tmp_path / "test" / "b" / "leak.jpg", quality=90)
    facts = load_data(str(tmp_path)).facts["near_duplicates"]
    assert facts == {"val": 0, "test": 1, "pairs": [["test/b/leak.jpg", "val/b/3.png"]]}
