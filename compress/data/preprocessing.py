"""How an image becomes the input of a network: one record for training, ONNX Runtime and generated C."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from compress.argument_checks import is_number, is_whole
from compress.data.exif_orientation import upright
from compress.data.pixel_depth import DEPTHS, FULL_DEPTH, deep_pixels, eight_bits
from hw_profiles.errors import InputError

PREPROCESSING_SCHEMA = 1
METADATA_KEY = "fitnas.preprocessing"
_LARGEST_SIDE = 2**16
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """Convert the image to 8-bit grayscale or RGB, center-crop to the aspect ratio, resize with a bilinear filter
    through each of ``sizes`` (height, width), divide by 255, subtract ``mean``, divide by ``std`` per channel: float32
    (N, C, H, W). Of images of 16 bits the lower ``bits`` are used: they are scaled from 0..2**bits - 1.

    >>> p = Preprocessing(channels=1, sizes=((8, 8),), mean=(0.5,), std=(0.25,), class_names=("a", "b"))
    >>> p.tensor(np.full((1, 8, 8, 1), 255, np.uint8)).max().item()
    2.0
    """

    channels: int
    sizes: tuple[tuple[int, int], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    bits: int = FULL_DEPTH

    def __post_init__(self) -> None:
        if not is_whole(self.channels, 1, 3) or self.channels == 2:
            raise InputError(f"Preprocessing.channels must be 1 or 3, got {self.channels!r:.100}")
        if not self.sizes or not all(map(_is_size, self.sizes)):
            raise InputError(
                f"Preprocessing.sizes must be pairs of integers between 1 and {_LARGEST_SIDE}, got {self.sizes!r:.100}"
            )
        if len(self.mean) != self.channels or not all(is_number(value, -_LARGEST, _LARGEST) for value in self.mean):
            raise InputError(f"Preprocessing.mean must be a number for each channel, got {self.mean!r:.100}")
        if len(self.std) != self.channels or not all(is_number(value, _SMALLEST, _LARGEST) for value in self.std):
            raise InputError(f"Preprocessing.std must be a number above 0 for each channel, got {self.std!r:.100}")
        if not is_whole(self.bits, 1) or self.bits not in DEPTHS:
            raise InputError(f"Preprocessing.bits must be one of {', '.join(map(str, DEPTHS))}, got {self.bits!r:.100}")
        if not all(isinstance(name, str) for name in self.class_names):
            raise InputError(f"Preprocessing.class_names must be text, got {self.class_names!r:.100}")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the network reads."""
        return (self.channels, *self.sizes[-1])

    def image(self, image: Image.Image) -> NDArray[np.uint8]:
        """The pixels (height, width, channels) of an opened image after cutting and resizing.

        The image is turned as its EXIF orientation says. Pixels of 16 bits are scaled, transparent ones are laid
        on white, and palettes, CMYK and the like become RGB.

        Raises:
            InputError: floating-point pixels, which have no fixed range, or integers that need more bits.

        >>> p = Preprocessing(channels=1, sizes=((2, 2),), mean=(0.5,), std=(0.25,), class_names=("a", "b"))
        >>> p.image(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))[0, 0, 0].item()
        255
        """
        image = upright(_eight_bits(image, self.bits), image).convert("L" if self.channels == 1 else "RGB")
        for height, width in self.sizes:
            if image.size != (width, height):
                image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        pixels: NDArray[np.uint8] = np.asarray(image, np.uint8).reshape(*self.sizes[-1], self.channels)
        return pixels

    def tensor(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, C) pixels of the final size -> (N, C, H, W) network input."""
        x = pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        shape = (1, self.channels, 1, 1)
        mean, std = (np.array(values, np.float32).reshape(shape) for values in (self.mean, self.std))
        normalized: NDArray[np.float32] = np.ascontiguousarray((x - mean) / std)
        return normalized

    def to_json(self) -> str:
        """The inverse of :meth:`from_json`."""
        record = {"schema": PREPROCESSING_SCHEMA, **asdict(self)}
        if self.bits == FULL_DEPTH:  # as records were before there were others
            del record["bits"]
        return json.dumps(record)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Parse what :meth:`to_json` wrote; an InputError names what is wrong."""
        try:
            data: Mapping[str, Any] = json.loads(text)
            if data["schema"] != PREPROCESSING_SCHEMA:
                raise InputError(f"schema must be {PREPROCESSING_SCHEMA}, got {data['schema']!r}")
            lists = {name: _listed(name, data[name]) for name in ("sizes", "mean", "std", "class_names")}
            lists["sizes"] = tuple(tuple(_listed("sizes", size)) for size in lists["sizes"])
            return cls(channels=data["channels"], bits=data.get("bits", FULL_DEPTH), **lists)
        except InputError:
            raise
        except (KeyError, TypeError, RecursionError, ValueError) as error:  # also a number of too many digits
            raise InputError(f"not a preprocessing record ({error!r})") from None


def _is_size(size: object) -> bool:
    return isinstance(size, tuple | list) and len(size) == 2 and all(is_whole(side, 1, _LARGEST_SIDE) for side in size)


def _listed(name: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise InputError(f"Preprocessing.{name} must be a list, got {value!r:.100}")
    return tuple(value)


def _eight_bits(image: Image.Image, bits: int) -> Image.Image:
    """Without depth or transparency that a plain conversion would cut off."""
    if image.mode == "F":
        raise InputError("floating-point pixels have no fixed range: save the image with 8 or 16 bits")
    deep = deep_pixels(image) if image.mode.startswith("I") or bits < FULL_DEPTH else None
    if deep is not None:
        return Image.fromarray(eight_bits(deep, bits))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB") if image.mode == "LAB" else image  # Pillow makes no gray of LAB
