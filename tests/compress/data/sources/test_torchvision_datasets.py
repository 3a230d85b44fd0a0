"""Data sets of torchvision: from a local root, and told when they cannot be had."""

from __future__ import annotations

import errno
import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image

from compress.data.dataset import load_data
from compress.data.sources.torchvision_datasets import SETS


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fitnas" / "torchvision"


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())
    with gzip.open(f"{path}.gz", "wb") as file:
        file.write(header + array.tobytes())


def test_mnist_is_read_from_files_that_are_there_already(cache: Path) -> None:
    raw = cache / "MNIST" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    images = {"train": generator.integers(0, 256, (100, 28, 28), dtype=np.uint8)}
    images["t10k"] = generator.integers(0, 256, (20, 28, 28), dtype=np.uint8)
    for part, pixels in images.items():
        write_idx(raw / f"{part}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{part}-labels-idx1-ubyte", (np.arange(len(pixels)) % 10).astype(np.uint8))
    data = load_data("torchvision:mnist")
    assert (len(data.train) + len(data.val), len(data.test)) == (100, 20)
    assert data.preprocessing.input_shape == (1, 28, 28)
    assert data.preprocessing.class_names[3] == "3 - three"
    assert np.array_equal(data.test.images[..., 0], images["t10k"])
    assert data.test.labels.tolist() == list(range(10)) * 2


class WithoutLists:
    """A set that has neither ``targets`` nor ``labels``, as several of torchvision."""

    def __init__(self, root: str, *, download: bool, split: str) -> None:
        assert download
        self.color = {"train": 50, "val": 100, "test": 150}[split]

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index >= 6:
            raise IndexError
        return Image.new("RGB", (9, 8), (self.color, index, 0)), index % 3


def test_given_validation_images_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "DTD", WithoutLists)
    data = load_data("torchvision:DTD")
    assert [set(split.images[..., 0].ravel()) for split in (data.train, data.val, data.test)] == [{50}, {100}, {150}]
    assert data.val.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.preprocessing.class_names == ("0", "1", "2")


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ValueError, match=r"unknown dataset; did you mean 'cifar10'.; valid: MNIST"):
        load_data("torchvision:cifr10")


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise RuntimeError("Error downloading\n  Name or service not known")

    monkeypatch.setattr(torchvision.datasets, "SVHN", refuse)
    with pytest.raises(ValueError, match=r"torchvision:SVHN: could not be downloaded .*Name or service") as caught:
        load_data("torchvision:SVHN")
    assert "\n" not in str(caught.value)


def test_a_full_disk_stays_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(torchvision.datasets, "SVHN", fill)
    with pytest.raises(OSError, match="no space left") as caught:
        load_data("torchvision:SVHN")
    assert caught.value.errno == errno.ENOSPC


def test_all_listed_sets_are_of_torchvision() -> None:
    assert all(hasattr(torchvision.datasets, name) for name in SETS)
