"""Folders as users have them: damaged files, links, groups, mistakes."""

from __future__ import annotations

import csv
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.data.dataset import Dataset, load_data


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8))


def write(root: Path, counts: Mapping[str, int], start: int = 0) -> Path:
    for i, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for j in range(count):
            picture(start + 1000 * i + j).save(root / name / f"{j:02}.png")
    return root


def write_groups(root: Path, group_of: Callable[[Path], str]) -> None:
    with (root / "groups.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "group"])
        for path in sorted(root.rglob("*.png")):
            rows.writerow([path.relative_to(root).as_posix(), group_of(path)])


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it has that many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def damage(root: Path) -> list[str]:
    """Five files that are no images."""
    whole = (root / "cat" / "00.png").read_bytes()
    (root / "cat" / "90.png").write_bytes(whole[: len(whole) // 2])
    (root / "cat" / "91.jpg").write_bytes(b"")
    (root / "dog" / "92.png").write_text("no image")
    (root / "dog" / "93.png").write_bytes(bomb(12_000, 12_000))
    (root / "dog" / "94.png").symlink_to("nowhere.png")
    return ["cat/90.png", "cat/91.jpg", "dog/92.png", "dog/93.png", "dog/94.png"]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_files_are_counted_and_named(tmp_path: Path) -> None:
    damage(write(tmp_path, {"cat": 10, "dog": 10}))
    with pytest.raises(ValueError, match="5 of 25 images cannot be read") as caught:
        load_data(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert "unreadable=skip" in str(caught.value)
    assert str(caught.value).count(" (") == 3


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_files_are_left_out_where_that_is_wished(tmp_path: Path) -> None:
    names = damage(write(tmp_path, {"cat": 10, "dog": 10}))
    data = load_data(str(tmp_path), unreadable="skip")
    skipped = data.facts["skipped"]
    assert skipped["count"] == 5
    assert sorted(each["file"] for each in skipped["files"]) == names
    why = {each["file"]: each["why"] for each in skipped["files"]}
    assert why["dog/92.png"] == "not an image in a supported format: AVIF, BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"
    assert why["dog/93.png"] == "12000×12000 pixels are more than 89,478,485"
    splits = (data.train, data.val, data.test)
    assert sum(len(split) for split in splits) == 20
    for split in splits:
        for image, label in zip(split.images, split.labels, strict=True):
            assert any(
                np.array_equal(image, Image.open(path)) for path in (tmp_path / ("cat", "dog")[label]).glob("0*.png")
            )


def test_a_class_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"cat": 10, "dog": 10})
    for path in (tmp_path / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="'dog' has none in train"):
        load_data(str(tmp_path), unreadable="skip")


def test_other_wishes_for_unreadable_are_refused() -> None:
    with pytest.raises(ValueError, match="unreadable must be refuse or skip, got 'skp'; did you mean 'skip'"):
        load_data("digits", unreadable="skp")


@pytest.mark.parametrize("what", ["file", "folder", "class"])
def test_links_that_lead_out_of_the_folder_are_refused(tmp_path: Path, what: str) -> None:
    root = write(tmp_path / "d", {"cat": 5, "dog": 5})
    outside = write(tmp_path / "outside", {"cat": 3})
    target = outside / "cat" / "00.png" if what == "file" else outside / "cat"
    place = {"file": root / "cat" / "99.png", "folder": root / "cat" / "more", "class": root / "bird"}[what]
    place.symlink_to(target)
    if what == "folder":  # nested links to folders are never walked
        assert sum(load_data(str(root)).facts["counts"]["train"].values()) == 6
        return
    with pytest.raises(ValueError, match=r"the symbolic link is broken or points outside .*; copy the files"):
        load_data(str(root))


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "d", {"cat": 5, "dog": 5})
    (root / "cat" / "loop.png").symlink_to(root / "cat" / "loop.png")
    with pytest.raises(ValueError, match=r"loop.png: the symbolic link is broken or points outside"):
        load_data(str(root))


def test_other_folders_beside_the_splits_are_refused_by_name(tmp_path: Path) -> None:
    for split in ("train", "vall", "test"):
        write(tmp_path / split, {"cat": 5, "dog": 5})
    with pytest.raises(
        ValueError,
        match=r"unexpected folder vall/ next to train/, only val/ and test/ are allowed; did you mean 'val'\?",
    ):
        load_data(str(tmp_path))


def test_the_usual_size_is_that_of_most_images(tmp_path: Path) -> None:
    root = write(tmp_path, {"cat": 8, "dog": 8})
    Image.new("RGB", (90, 90)).save(root / "cat" / "large.png")
    own = Image.open(root / "dog" / "00.png").size
    assert load_data(str(root)).preprocessing.input_shape[1:] == (min(own), min(own))


def test_a_link_within_the_folder_is_an_image_and_a_pipe_is_none(tmp_path: Path) -> None:
    root = write(tmp_path, {"cat": 5, "dog": 5})
    (root / "cat" / "zz.png").symlink_to(root / "cat" / "00.png")
    os.mkfifo(root / "cat" / "pipe.png")
    (root / "cat" / "._00.png").write_bytes(b"of a Mac")
    assert sum(sum(counts.values()) for counts in load_data(str(root)).facts["counts"].values()) == 11


def groups_of(data: Dataset, root: Path) -> list[set[str]]:
    by_pixels = {np.asarray(Image.open(path)).tobytes(): path for path in root.rglob("*.png")}
    return [
        {by_pixels[image.tobytes()].stem[-1] + by_pixels[image.tobytes()].parent.name for image in split.images}
        for split in (data.train, data.val, data.test)
    ]


def test_images_of_a_group_stay_together(tmp_path: Path) -> None:
    root = write(tmp_path, {"cat": 60, "dog": 40})
    write_groups(root, lambda path: path.stem[-1] + path.parent.name)  # ten groups of each class
    data = load_data(str(root), seed=4)
    parts = groups_of(data, root)
    assert sum(map(len, parts)) == len(set().union(*parts)) == 20
    assert data.facts["groups"] == {"train": len(parts[0]), "val": len(parts[1]), "test": len(parts[2])}
    assert data.facts["counts"]["test"] == {"cat": 12, "dog": 8}
    assert np.array_equal(data.test.images, load_data(str(root), seed=4).test.images)
    assert not np.array_equal(data.test.images, load_data(str(root), seed=5).test.images)


def test_given_test_images_keep_their_groups_too(tmp_path: Path) -> None:
    write(tmp_path / "train", {"cat": 20, "dog": 20})
    write(tmp_path / "test", {"cat": 4, "dog": 4}, start=5000)
    write_groups(tmp_path, lambda path: path.parts[-3] + path.stem[-1])
    assert load_data(str(tmp_path)).facts["groups"]["test"] == 4
    write_groups(tmp_path, lambda path: "same" if path.stem == "01" else path.parts[-3] + path.stem)
    with pytest.raises(ValueError, match="group 'same' has images under train/ and under test/"):
        load_data(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("photo,group\n", "the first line must be 'file,group', got 'photo,group'"),
        ("file,group\ncat/00.png,a\ncat/0.png,a\n", "'cat/0.png' is not an image in this folder; did you mean"),
        ("file,group\ncat/00.png,a\n", "each image must have a row, 'cat/01.png' has none"),
        ("file,group\ncat/00.png,a\ncat/00.png,b\n", "'cat/00.png' has two rows, the second in line 3"),
        ("file,group\ncat/00.png\n", "line 2 must be a file and its group, got 'cat/00.png'"),
        ("file,group\n../../etc/passwd,a\n", "'../../etc/passwd' is not an image in this folder"),
    ],
)
def test_wrong_groups_are_named(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        load_data(str(tmp_path))


def test_too_few_groups_for_the_splits_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"cat": 9, "dog": 9})
    write_groups(
        tmp_path, lambda path: path.parent.name + str(int(path.stem) % (2 if path.parent.name == "dog" else 5))
    )
    with pytest.raises(ValueError, match="class 'dog' has images in 2 groups, at least 3 are needed"):
        load_data(str(tmp_path))


def test_mistakes_in_the_folders_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a", {"cat": 5, "dog": 5, "bird": 0})
    with pytest.raises(ValueError, match=r"class 'bird': .* holds no image"):
        load_data(str(tmp_path / "a"))
    write(tmp_path / "b" / "test", {"cat": 5, "dog": 5})
    with pytest.raises(ValueError, match="holds test/ with classes in it but no train/"):
        load_data(str(tmp_path / "b"))
    write(tmp_path / "c" / "train", {"cat": 5, "dog": 5})
    write(tmp_path / "c" / "test", {"cat": 5, "dogs": 5})
    with pytest.raises(ValueError, match="the class 'dogs' has no folder under train/; did you mean 'dog'"):
        load_data(str(tmp_path / "c"))
    write(tmp_path / "d" / "train", {"cat": 5, "dog": 5})
    write(tmp_path / "d" / "test", {"cat": 5})
    with pytest.raises(ValueError, match="'dog' has none in test"):
        load_data(str(tmp_path / "d"))
    (tmp_path / "flat").mkdir()
    picture(0).save(tmp_path / "flat" / "0.png")
    with pytest.raises(ValueError, match="expected one subfolder of images per class"):
        load_data(str(tmp_path / "flat"))
    with pytest.raises(ValueError, match="has an unsupported format"):
        load_data(str(tmp_path / "flat" / "0.png"))
