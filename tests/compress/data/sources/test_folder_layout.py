"""Folders as people have them: names of splits, what systems leave there, labels in a table, other formats."""

from __future__ import annotations

import logging
import os
import struct
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from compress.data.dataset import Dataset, load_data
from compress.networks.calibration_data import calibration_dataset


def picture(seed: int, side: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def write(root: Path, classes: Sequence[str] = ("cat", "dog"), count: int = 6, start: int = 0) -> Path:
    for i, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for j in range(count):
            picture(start + 1000 * i + j).save(root / name / f"{j}.png")
    return root


def sizes(data: Dataset) -> tuple[int, int, int]:
    return len(data.train), len(data.val), len(data.test)


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING", "training_set"])
@pytest.mark.parametrize(("val", "test"), [("valid", "Testing"), ("Validation", "test"), ("val_set", "TESTSET")])
def test_splits_are_called_in_many_ways(tmp_path: Path, train: str, val: str, test: str) -> None:
    write(tmp_path / train, count=7)
    write(tmp_path / val, count=3, start=100)
    write(tmp_path / test, count=2, start=200)
    data = load_data(tmp_path)
    assert sizes(data) == (14, 6, 4)
    assert data.preprocessing.class_names == ("cat", "dog")
    assert data.facts["left_out"] == {}


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "valid"):
        write(tmp_path / name)
    with pytest.raises(ValueError, match="val/ and valid/ both are the val split; merge them"):
        load_data(tmp_path)


@pytest.mark.parametrize("names", [("bus", "train"), ("test 1", "test 2"), ("train_1", "train_2")])
def test_a_class_may_be_called_as_a_split_is(names: tuple[str, str], tmp_path: Path) -> None:
    assert load_data(write(tmp_path, classes=names)).preprocessing.class_names == names


@pytest.mark.parametrize("inside", ["", "test", "unknown"])
def test_a_test_folder_without_classes_is_left_out_and_said(
    tmp_path: Path, inside: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "train", count=10)
    (tmp_path / "test" / inside).mkdir(parents=True)
    for i in range(3):
        picture(500 + i).save(tmp_path / "test" / inside / f"{i}.png")
    with caplog.at_level(logging.INFO, "fitnas"):
        data = load_data(tmp_path)
    assert sum(sizes(data)) == 20
    assert data.facts["left_out"] == {"under test/, which has no folders of classes": 3}
    assert caplog.messages == [f"--data {tmp_path}: files left out: 3 under test/, which has no folders of classes"]


def test_what_systems_and_tools_leave_behind_is_no_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path)
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".git"):
        write(tmp_path / "cat", classes=(name,), count=1)
        write(tmp_path, classes=(name,), count=1)
    for name in ("cat/Thumbs.db", "dog/.DS_Store", "notes.txt", "cat/a.txt"):
        (tmp_path / name).write_bytes(b"x")
    picture(7).save(tmp_path / "beside.png")
    with caplog.at_level(logging.INFO, "fitnas"):
        data = load_data(tmp_path)
    assert sum(sizes(data)) == 12
    assert data.preprocessing.class_names == ("cat", "dog")
    assert data.facts["left_out"] == {
        "in hidden or system folders": 8,
        "beside the folders of classes": 1,
        "of other kinds (.txt 2, .db 1, no suffix 1)": 4,
    }
    assert len(caplog.messages) == 1


def test_a_class_without_images_says_what_is_there(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "1.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"class 'bird': .* holds no image \(1 of other kinds \(.heic 1\)\)"):
        load_data(tmp_path)


def test_a_folder_in_a_folder_is_the_one_that_is_meant(tmp_path: Path) -> None:
    write(tmp_path / "download" / "photos" / "train")
    data = load_data(tmp_path / "download")
    assert data.preprocessing.class_names == ("cat", "dog")
    assert data.test_names[0].startswith("train/")


def test_a_class_that_is_elsewhere_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train", count=5)
    write(tmp_path / "val", classes=("cat",), count=4, start=100)
    with pytest.raises(ValueError, match=r"'dog' has none in val \(train has 4, test has 1\)"):
        load_data(tmp_path)


FORMATS = {
    ".JFIF": "JPEG",
    ".webp": "WEBP",
    ".Tif": "TIFF",
    ".BMP": "BMP",
    ".gif": "GIF",
    ".JPE": "JPEG",
    ".mpo": "MPO",
}
FORMATS |= {".avif": "AVIF"} if features.check("avif") else {}


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_usual_format_is_read(tmp_path: Path, suffix: str) -> None:
    write(tmp_path)
    for name, color in (("cat", (200, 30, 40)), ("dog", (20, 60, 180))):
        for path in (tmp_path / name).iterdir():
            path.unlink()
        for i in range(6):
            Image.new("RGB", (16, 16), color).save(tmp_path / name / f"{i}{suffix}", format=FORMATS[suffix])
    data = load_data(tmp_path)
    assert sum(sizes(data)) == 12
    for image, label in zip(data.train.images, data.train.labels, strict=True):
        assert np.abs(image[8, 8] - np.array([(200, 30, 40), (20, 60, 180)][label], np.float64)).max() < 8


def test_of_a_moving_picture_the_first_frame_is_read(tmp_path: Path) -> None:
    for name, shade in (("cat", 40), ("dog", 200)):
        (tmp_path / name).mkdir()
        frames = [Image.new("L", (8, 8), value) for value in (shade, 120, 90)]
        for i in range(4):
            frames[0].save(tmp_path / name / f"{i}.gif", save_all=True, append_images=frames[1:], loop=0)
    data = load_data(tmp_path)
    assert {int(image.mean()) for image in data.train.images} == {40, 200}


def png16(pixels: np.ndarray) -> bytes:
    """A PNG of colors of 16 bits, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_images_of_sixteen_bits_are_scaled_by_the_bits_that_they_use(tmp_path: Path, bits: int, color: bool) -> None:
    generator = np.random.default_rng(0)
    originals = []
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            deep = generator.integers(0, 2**bits, (8, 8, 3), dtype=np.uint16)
            deep[0, 0] = 2**bits - 1
            path = tmp_path / name / f"{i}.png"
            if color:
                path.write_bytes(png16(deep))
            else:
                deep = deep[..., :1]
                Image.fromarray(deep[..., 0]).save(path)
            originals.append(deep)
    data = load_data(tmp_path)
    assert data.preprocessing.bits == bits
    expected = [np.asarray(deep, np.float64) / (2**bits - 1) * 255 for deep in originals]
    limit = 1.0 if color and bits == 16 else 0.501  # of full colors Pillow keeps the upper byte
    for split in (data.train, data.val, data.test):
        for image in split.images:
            assert min(np.abs(each - image).max() for each in expected) <= limit


def test_one_image_among_many_that_uses_more_bits_decides(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(150):
            Image.fromarray(np.full((2, 2), 40 * i % 4096, np.uint16)).save(tmp_path / name / f"{i:03}.png")
    Image.fromarray(np.full((2, 2), 9000, np.uint16)).save(tmp_path / "dog" / "001.png")
    assert load_data(tmp_path).preprocessing.bits == 14


def test_an_image_of_more_bits_than_the_record_says_is_refused() -> None:
    from compress.data.decoding import resize_step

    with pytest.raises(ValueError, match=r"must be between 0 and 4095 \(12 bits, as .*\), got 5000..5000"):
        resize_step(1, (2, 2), 12).image(Image.fromarray(np.full((2, 2), 5000, np.uint16)))


def test_cmyk_jpegs_and_turned_photos_are_as_a_viewer_shows_them(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            upright = np.full((16, 16, 3), (0, 160, 160), np.uint8)
            upright[8:] = 0
            stored = Image.fromarray(np.rot90(upright, 2).copy()).convert("CMYK")
            stored.save(tmp_path / name / f"{i}.jpg", exif=exif, quality=95)
    image = load_data(tmp_path).train.images[0].astype(int)
    assert np.abs(image[2, 8] - (0, 160, 160)).max() < 12
    assert image[14, 8].max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_colors_are_turned_too(orientation: int) -> None:
    import io

    from PIL import ImageOps

    from compress.data.decoding import resize_step

    deep = np.random.default_rng(1).integers(0, 4096, (4, 6, 3), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = png16(deep)
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    extra = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    opened = Image.open(io.BytesIO(body[:33] + extra + body[33:]))
    eight = Image.fromarray(np.rint(deep / 4095 * 255).astype(np.uint8))
    eight.info["exif"] = exif.tobytes()
    wanted = np.asarray(ImageOps.exif_transpose(eight))
    assert np.array_equal(resize_step(3, wanted.shape[:2], 12).image(opened), wanted)


def test_names_of_classes_are_the_same_however_accents_are_written(tmp_path: Path) -> None:
    for split, form, count in (("train", "NFC", 8), ("test", "NFD", 4)):
        for k, name in enumerate(("été", "hiver")):
            folder = tmp_path / split / unicodedata.normalize(form, name)
            folder.mkdir(parents=True)
            for i in range(count):
                picture(i + 20 * k + 100 * count).save(folder / f"{i}.png")
    data = load_data(tmp_path)
    assert data.preprocessing.class_names == ("hiver", "été")
    assert np.bincount(data.test.labels).tolist() == [4, 4]


def write_labels(root: Path, rows: Sequence[tuple[str, str]]) -> None:
    (root / "labels.csv").write_text("\n".join(["file,label", *(",".join(row) for row in rows)]) + "\n")


def test_labels_come_from_a_table(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(24):
        Image.new("L", (8, 8), 10 * (i % 3)).save(tmp_path / "images" / f"{i:02}.png")
    write_labels(tmp_path, [(f"images/{i:02}.png", str(8 + i % 3)) for i in range(21)])
    data = load_data(tmp_path)
    assert data.preprocessing.class_names == ("8", "9", "10")
    assert sum(sizes(data)) == 21
    assert data.facts["left_out"] == {"without a row in labels.csv": 3}
    for split in (data.train, data.val, data.test):
        assert np.array_equal(split.images[:, 0, 0, 0] // 10, split.labels)


def test_a_table_keeps_the_folders_of_splits(tmp_path: Path) -> None:
    rows = []
    for split, count in (("Train", 8), ("test", 4)):
        (tmp_path / split).mkdir()
        for i in range(count):
            picture(i + 100 * count).save(tmp_path / split / f"{i}.png")
            rows.append((f"{split}/{i}.png", "ab"[i % 2]))
    write_labels(tmp_path, rows)
    data = load_data(tmp_path)
    assert len(data.test) == 4
    assert {name.split("/")[0] for name in data.test_names} == {"test"}


def test_a_table_may_say_the_splits(tmp_path: Path) -> None:
    splits = ["train"] * 8 + ["validation"] * 4 + ["Test"] * 2
    for i in range(len(splits)):
        picture(i).save(tmp_path / f"{i:02}.png")
    rows = [f"{i:02}.png,{'ab'[i % 2]},{split}\n" for i, split in enumerate(splits)]
    (tmp_path / "labels.csv").write_text("".join(["file,label,split\n", *rows]))
    data = load_data(tmp_path)
    assert sizes(data) == (8, 4, 2)
    assert sorted(data.test_names) == ["12.png", "13.png"]
    (tmp_path / "labels.csv").write_text("".join(["file,label,split\n", *rows[:-1], "13.png,b,kept\n"]))
    with pytest.raises(ValueError, match=r"the split of '13.png' must be train, val or test, got 'kept'"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "\ufefffile,label\r\n{},{}\r\n",
        "Filename;Class\n{};{}\n",
        "image_path\tcategory\twidth\n{}\t{}\t8\n",
        '"label","file"\n"{1}","{0}"\n',
        '"label", "file"\n"{1}", "{0}"\n',
    ],
)
def test_tables_come_as_programs_write_them(tmp_path: Path, text: str) -> None:
    """With a byte order mark, semicolons or tabs, names of columns in other words and orders, quoted commas."""
    header, row = text.split("\n", 1)
    rows = []
    (tmp_path / "images").mkdir()
    for i in range(24):
        name = unicodedata.normalize("NFD", f"é {i}.png")
        picture(i).save(tmp_path / "images" / name)
        written = [f"images/é {i}.png", f"é {i}.png", f"é {i}"][i % 3]
        rows.append(row.format(written, f"cat, {'ab'[i % 2]}" if '"' in text else "ab"[i % 2]))
    (tmp_path / ("Labels.CSV" if ";" in text else "labels.csv")).write_text(
        "".join([header, "\n", *rows]), encoding="utf-8", newline=""
    )
    data = load_data(tmp_path)
    assert sum(sizes(data)) == 24
    assert data.preprocessing.class_names == (("cat, a", "cat, b") if '"' in text else ("a", "b"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("photo,kind\na,b\n", "the first line must be 'file,label', got 'photo,kind'"),
        ("", "the first line must be 'file,label', got ''"),
        ("file,label\n0.png,a,b\n", "line 2 must be a file and its label, got '0.png,a,b'"),
        ("file,label\n0.png,a\n0,b\n", "'0.png' has two rows, one of them as '0'"),
        ("file,label\n9.png,a\n", "'9.png' is not an image in this folder"),
        ("file,label\n../x.png,a\n", "'../x.png' is not an image in this folder"),
        ("file,label\n0.png,a\n0.png,b\n", "'0.png' has two rows"),
        ("file,label\n0.png,a\n1.png,a\n", r"at least two classes are needed, got 1 \(a\)"),
        ("file,label\n", "labels.csv: has no rows"),
        ("file,label,split\n0.png,a,val\n1.png,b,test\n", "must say train for some images, got test, val"),
    ],
)
def test_wrong_tables_of_labels_are_named(tmp_path: Path, text: str, said: str) -> None:
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        load_data(tmp_path)


def test_a_table_may_name_whole_paths(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    rows = []
    for i in range(8):
        picture(i).save(folder / "images" / f"{i}.png")
        rows.append((f"{tmp_path / ('photos', 'link')[i % 2]}/images/{i}.png", "ab"[i // 4]))
    write_labels(folder, rows)
    assert sum(sizes(load_data(tmp_path / "link"))) == 8
    with pytest.raises(ValueError, match=r"link/images/1\.png' is not an image in this folder"):
        load_data(folder)


def test_a_table_is_no_file_that_was_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(8):
        picture(i).save(tmp_path / "photos" / f"{i}.png")
    write_labels(tmp_path / "photos", [(f"{i}.png", "ab"[i // 4]) for i in range(8)])
    monkeypatch.chdir(tmp_path)
    assert load_data("photos").facts["left_out"] == {}


@pytest.mark.parametrize("names", [("Test", "train"), ("train2017", "val2017"), ("train",)])
def test_splits_without_classes_are_no_classes(names: Sequence[str], tmp_path: Path) -> None:
    write(tmp_path, classes=names)
    said = rf"no classes, {'/ and '.join(names)}/ must hold one subfolder of images per class"
    with pytest.raises(ValueError, match=said):
        load_data(tmp_path)
    assert not calibration_dataset(str(tmp_path)).train.is_labeled


def test_names_that_are_no_utf8_can_be_written(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"bar"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        for i in range(6):
            picture(i + len(name)).save(folder / os.fsdecode(b"\xff%d.png" % i))
        (folder / os.fsdecode(b"notes.\xe9")).touch()
    data = load_data(tmp_path)
    assert data.preprocessing.class_names == ("bar", "caf\ufffd")
    assert sorted(data.test_names)[0].startswith("bar/\ufffd")
    assert data.facts["left_out"] == {"of other kinds (.\ufffd 2)": 2}
