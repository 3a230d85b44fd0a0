"""The EXIF orientation of an image: how it must be turned to stand upright."""

from __future__ import annotations

import struct

from PIL import Image, ImageOps

_ORIENTATION = 0x0112


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


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says."""
    return ImageOps.exif_transpose(image) if _orientation(image) in range(2, 9) else image
