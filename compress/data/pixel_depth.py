"""Images of 16 bits: how many of the bits are used, and their pixels in 8."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from hw_profiles.errors import InputError

FULL_DEPTH = 16
DEPTHS = (8, 10, 12, 14, FULL_DEPTH)
"""Bits of a pixel that cameras and scanners deliver; what is in between is taken as the next larger one."""
_OTHER_BYTE = {"RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B"}
_LOOKED_AT = 200
_CHUNK = 64
_THREADS = 4


class Images(Protocol):
    """Opens numbered images."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> Image.Image:
        """The picture."""


def held_bits(readers: Sequence[Images]) -> int:
    """How many bits the deep images (of 16 bits a pixel) use: the least of 8, 10, 12, 14 and 16 that holds all.

    Up to 200 images are looked at; where some are deep and use fewer than 16 bits, all are. What cannot be read is
    passed over.

    >>> class Pictures(list):
    ...     def open(self, index):
    ...         return Image.fromarray(self[index])
    >>> held_bits([Pictures([np.full((2, 2), 4095, np.uint16)])])
    12
    """
    sample = _deepest(readers, sampled=True)
    if not 0 <= sample < 2 ** DEPTHS[-2]:
        return FULL_DEPTH
    largest = _deepest(readers, sampled=False)
    return next((bits for bits in DEPTHS if largest < 2**bits), FULL_DEPTH)


def _deepest(readers: Sequence[Images], *, sampled: bool) -> int:
    """The largest pixel of the deep images, or the first that needs all bits; -1 where none is deep."""
    wanted = []
    for reader in readers:
        step = -(-len(reader) // _LOOKED_AT) or 1
        wanted += [(reader, index) for index in range(0, len(reader), step if sampled else 1)]
    largest = -1
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(wanted), _CHUNK):
            found = pool.map(lambda pair: _largest(*pair), wanted[start : start + _CHUNK])
            largest = max(largest, *found)
            if largest >= 2 ** DEPTHS[-2]:
                break
    return largest


def _largest(reader: Images, index: int) -> int:
    try:
        with reader.open(index) as image:
            deep = deep_pixels(image)
            return -1 if deep is None else int(deep.max())
    except Exception:  # whether it matters that it cannot be read is decided when all are read
        return -1


def deep_pixels(image: Image.Image) -> NDArray[np.int64] | None:
    """The pixels of a deep image, (H, W) or (H, W, 3); None of any other."""
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.int64)
    low_format = _color_format(image)
    if low_format is None:
        return None
    low = _low_bytes(image, low_format)
    both: NDArray[np.int64] = np.asarray(image).astype(np.int64) * 256 + low
    return both


def eight_bits(deep: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """Pixels of 0..2**bits - 1 scaled to 0..255, rounded to the nearest.

    >>> eight_bits(np.array([0, 2048, 4095]), 12).tolist()
    [0, 128, 255]
    """
    most = 2**bits - 1
    if deep.min() < 0 or deep.max() > most:
        raise InputError(f"integer pixels must be between 0 and {most}{_of(bits)}, got {deep.min()}..{deep.max()}")
    scaled: NDArray[np.uint8] = ((deep * 510 + most) // (2 * most)).astype(np.uint8)
    return scaled


def _of(bits: int) -> str:
    return "" if bits == FULL_DEPTH else f" ({bits} bits, as in the images that it was made for)"


def _color_format(image: Image.Image) -> str | None:
    """How Pillow reads the lower byte of colors of 16 bits, of which it keeps the upper one."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    formats = {str(_raw_format(tile.args)) for tile in tiles}
    return _OTHER_BYTE.get(formats.pop()) if len(formats) == 1 else None


def _raw_format(args: Any) -> Any:
    return args[0] if isinstance(args, tuple) and args else args


def _low_bytes(image: Image.Image, low_format: str) -> NDArray[np.int64]:
    assert isinstance(image, ImageFile.ImageFile)
    file: Any = image.fp
    place = file.tell()
    file.seek(0)
    low: Any = Image.open(file, formats=[image.format or ""])
    low.tile = [
        tile._replace(args=(low_format, *tile.args[1:]) if isinstance(tile.args, tuple) else low_format)
        for tile in low.tile
    ]
    pixels: NDArray[np.int64] = np.asarray(low).astype(np.int64)
    file.seek(place)
    return pixels
