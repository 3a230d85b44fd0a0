"""The EXIF orientation of an image, and the rotation that undoes it."""

from __future__ import annotations

import struct

from PIL import Image

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of an opened image once it is turned as its EXIF orientation says.

    >>> upright_size(Image.new("L", (3, 2)))
    (2, 3)
    """
    return (image.width, image.height) if _orientation(image) in range(5, 9) else (image.height, image.width)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1  # an unreadable EXIF block says nothing about pixels that can be read


def upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """The pixels of an opened image, turned as its EXIF orientation says."""
    turn = _TURNS.get(_orientation(image))
    return pixels if turn is None else pixels.transpose(turn)
