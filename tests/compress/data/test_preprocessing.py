"""Any image becomes the pixels that a viewer shows, in 8 bits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.data.dataset import load_data
from compress.data.preprocessing import Preprocessing
from hw_profiles.errors import InputError


def record(channels: int, height: int = 4, width: int = 4) -> Preprocessing:
    ones = (1.0,) * channels
    return Preprocessing(channels=channels, sizes=((height, width),), mean=ones, std=ones, class_names=("a", "b"))


def saved(path: Path, image: Image.Image, **options: object) -> Image.Image:
    image.save(path, **options)
    return Image.open(path)


def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 16).round().astype(np.uint16).reshape(4, 4)
    for name in ("x.png", "x.tiff", "x.pgm"):
        pixels = record(1).image(saved(tmp_path / name, Image.fromarray(deep)))
        assert np.array_equal(pixels[..., 0], np.rint(deep / 65535 * 255)), name


def test_a_photo_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored picture must be turned a quarter clockwise to be upright
    stored = Image.fromarray(np.rot90(upright, 1).copy())
    opened = saved(tmp_path / "x.png", stored, exif=exif)
    assert np.array_equal(record(3, 16, 32).image(opened), upright)


def test_folders_of_turned_photos_have_the_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    for i in range(6):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), (i, 0, 0)).save(tmp_path / "ab"[i % 2] / f"{i}.jpg", exif=exif)
    assert load_data(str(tmp_path)).preprocessing.input_shape == (3, 30, 20)


def test_damaged_exif_does_not_make_an_image_unreadable() -> None:
    image = Image.new("RGB", (4, 4), "red")
    image.info["exif"] = b"Exif\0\0no such block"
    assert record(3).image(image)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_are_laid_on_white(mode: str) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255
    pixels[2, :, 3] = 128
    image = Image.fromarray(pixels).convert(mode)
    gray = record(1).image(image)[:, 0, 0]
    assert gray.tolist() == [0, 0, 127, 255]


def test_a_palette_with_and_without_a_transparent_color(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert record(3).image(saved(tmp_path / "x.png", image))[0, 0].tolist() == [0, 0, 255]
    assert record(3).image(saved(tmp_path / "y.png", image, transparency=1))[0, 0].tolist() == [255, 255, 255]


def test_cmyk_and_bilevel_images_are_read(tmp_path: Path) -> None:
    cyan = saved(tmp_path / "x.tiff", Image.new("CMYK", (4, 4), (255, 0, 0, 0)))
    assert record(3).image(cyan)[0, 0].tolist() == [0, 255, 255]
    assert record(1).image(saved(tmp_path / "y.png", Image.new("1", (4, 4), 1)))[0, 0].tolist() == [255]


def test_pixels_without_a_fixed_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="floating-point pixels have no fixed range"):
        record(1).image(saved(tmp_path / "x.tiff", Image.fromarray(np.ones((4, 4), np.float32))))
    with pytest.raises(ValueError, match=r"integer pixels must be between 0 and 65535, got 70000..70000"):
        record(1).image(saved(tmp_path / "y.tiff", Image.fromarray(np.full((4, 4), 70000, np.int32))))


def test_a_record_is_what_it_wrote() -> None:
    assert Preprocessing.from_json(record(3).to_json()) == record(3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *(({"std": [value, 1, 1]}, "std must be a number above 0") for value in (0, -1, 1e-50, "1", None, True, [1])),
        *(({"std": [float(value), 1, 1]}, "std must be a number above 0") for value in ("nan", "inf")),
        *(({"mean": [float(value), 1, 1]}, "mean must be a number for each channel") for value in ("nan", "-inf")),
        *(({"mean": value}, "mean must be a number for each channel") for value in ([], [0.5], [0.5] * 4, [10**400] * 3)),
        ({"std": [1, 1]}, "std must be a number above 0 for each channel, got (1, 1)"),
        ({"std": 1}, "std must be a list, got 1"),
        ({"mean": "abc"}, "mean must be a list, got 'abc'"),
        *(({"channels": value}, "channels must be 1 or 3") for value in (2, 3.0, "3", True, float("inf"), 10**400, None)),
        *(({"sizes": value}, "sizes must be ") for value in ([], 4, [4], [[4]], [[4, 0]], [[4, 4, 4]], [[4, 10**9]], ["ab"])),
        ({"sizes": [[4, float("inf")]]}, "sizes must be pairs of integers between 1 and 65536"),
        ({"class_names": "ab"}, "class_names must be a list, got 'ab'"),
        ({"class_names": ["a", 1]}, "class_names must be text, got ('a', 1)"),
        ({"schema": 2}, "schema must be 1, got 2"),
    ],
)  # fmt: skip
def test_a_hostile_record_is_refused_in_one_line(changes: dict[str, object], said: str) -> None:
    text = json.dumps({**json.loads(record(3).to_json()), **changes})
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        Preprocessing.from_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["", "[]", "1", "{}", "null", "[" * 100_000, '{"schema": 1}', "1" * 5000])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a preprocessing record"):
        Preprocessing.from_json(text)


def test_the_bits_of_deep_images_are_part_of_the_record() -> None:
    deep = Preprocessing(channels=1, sizes=((4, 4),), mean=(0.5,), std=(0.5,), class_names=(), bits=12)
    assert Preprocessing.from_json(deep.to_json()) == deep
    assert "bits" not in record(3).to_json()  # as in files that were written before
    with pytest.raises(ValueError, match="bits must be one of 8, 10, 12, 14, 16, got 11"):
        Preprocessing.from_json(deep.to_json().replace("12", "11"))
