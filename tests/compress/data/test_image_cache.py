"""Sets that are larger than the memory should hold."""

from __future__ import annotations

import errno
import shutil
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from compress.data import decoding, image_cache
from compress.data.dataset import load_data
from compress.training.evaluation import evaluate
from compress.training.loop import Recipe, train

MB = 1024**2


@pytest.fixture(autouse=True)
def small_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(image_cache, "LARGEST_IN_MEMORY", MB)
    monkeypatch.setattr(image_cache, "_CHUNK_BYTES", MB // 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_folder(root: Path, per_class: int, side: int) -> Path:
    for label in range(2):
        (root / str(label)).mkdir(parents=True)
        for j in range(per_class):
            pixels = np.random.default_rng(1000 * label + j).integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / str(label) / f"{j}.bmp")
    return root


def test_a_large_set_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", 400, 64)
    tracemalloc.start()
    data = load_data(str(root))
    larger = data.resized(96, 96)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(data.train.images, np.memmap)
    assert isinstance(larger.train.images, np.memmap)
    assert larger.train.images.shape == (544, 96, 96, 3)
    assert larger.train.images.nbytes > 14 * MB
    some = Image.fromarray(data.train.images[7]).resize((96, 96), Image.Resampling.BILINEAR)
    assert np.array_equal(larger.train.images[7], some)
    assert peak < 12 * MB


def test_training_and_evaluation_take_maps(tmp_path: Path) -> None:
    data = load_data(str(write_folder(tmp_path / "d", 200, 64)))
    assert isinstance(data.train.images, np.memmap)
    model = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.LazyLinear(2))
    model(torch.zeros(1, 3, 64, 64))
    assert train(model, data, Recipe(epochs=1, batch_size=32)).steps == 8
    assert 0 <= evaluate(model, data.train, data.preprocessing) <= 1


def test_what_was_decoded_is_found_again_and_made_anew_when_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_folder(tmp_path / "d", 150, 64)
    (root / "0" / "150.png").write_bytes(b"broken")
    first = load_data(str(root), unreadable="skip").resized(80, 80)
    opened: list[int] = []
    normal = decoding.ImageFileReader.open
    monkeypatch.setattr(decoding.ImageFileReader, "open", lambda self, i: opened.append(i) or normal(self, i))
    again = load_data(str(root), unreadable="skip").resized(80, 80)
    in_sample_and_small_splits = len(opened)
    assert in_sample_and_small_splits < 301 + 120
    assert np.array_equal(first.train.images, again.train.images)
    assert first.facts == again.facts
    assert again.facts["skipped"]["count"] == 1
    for path in root.rglob("*.bmp"):
        Image.new("RGB", (64, 64), "red").save(path)
    assert (load_data(str(root), unreadable="skip").train.images[0] == [255, 0, 0]).all()


def test_images_after_one_that_was_left_out_keep_their_place(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", 150, 64)
    for i in range(0, 150, 7):
        (root / "1" / f"{i}.bmp").write_bytes(b"broken")
    data = load_data(str(root), unreadable="skip")
    assert isinstance(data.train.images, np.memmap)
    assert data.facts["skipped"]["count"] == 22
    for label in (0, 1):
        files = {i: root / str(label) / f"{i}.bmp" for i in range(150) if label == 0 or i % 7}
        known = {np.asarray(Image.open(path)).tobytes() for path in files.values()}
        images = {image.tobytes() for image in data.train.images[data.train.labels == label]}
        assert images <= known
        assert len(images) == np.sum(data.train.labels == label)


def test_a_damaged_file_in_the_cache_is_made_anew() -> None:
    first = load_data("digits", size=64)
    assert isinstance(first.train.images, np.memmap)
    expected = first.train.images[:].copy()
    for path in (image_cache.cache_folder() / "images").glob("*.u8"):
        path.write_bytes(path.read_bytes()[:1000])
    assert np.array_equal(load_data("digits", size=64).train.images, expected)


def test_a_full_disk_is_told_and_leaves_nothing_half_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=MB))
    with pytest.raises(OSError, match="GB are needed for the images") as caught:
        load_data("digits", size=64)
    assert caught.value.errno == errno.ENOSPC
    assert not list((image_cache.cache_folder() / "images").glob("*.partial"))


def test_an_interrupted_fill_leaves_no_file() -> None:
    def fill(array: np.ndarray) -> list[tuple[int, str]]:
        array[:] = 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image_cache.stored_images((2, 1024, 1024, 1), lambda: "k", fill)
    assert [path.name for path in (image_cache.cache_folder() / "images").iterdir()] == ["k.lock"]
