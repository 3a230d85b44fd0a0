"""Images decoded into arrays by several threads, in order, a few hundred at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from compress.data.exif_orientation import upright_size
from compress.data.image_cache import Missing, Stored, chunk_size, stored_images
from compress.data.pixel_depth import FULL_DEPTH
from compress.data.preprocessing import Preprocessing
from hw_profiles.errors import InputError, short_reason

OnProgress = Callable[[float], None]

_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_GRAY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"}
_MOST_PIXELS = 89_478_485  # a quarter of a gigabyte in RGB, above which Pillow warns of decompression bombs
_LARGEST_SIDE = 160
_LOOKED_AT = 200
_THREADS = min(8, os.cpu_count() or 1)


class ImageReader(Protocol):
    """Opens numbered images when they are needed."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> Image.Image:
        """The picture; any exception means that it cannot be read."""

    def name(self, index: int) -> str:
        """What a user calls it."""

    def key(self, indices: NDArray[np.int64]) -> str:
        """A text that differs where the pixels may differ."""


def opened(file: Path | IO[bytes]) -> Image.Image:
    """An image file, opened but not decoded.

    Raises:
        InputError: a format that is not read, or more pixels than fit in a quarter of a gigabyte.
    """
    try:
        image: Image.Image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise InputError(f"not an image in a supported format: {', '.join(_FORMATS)}") from None
    if image.width * image.height > _MOST_PIXELS:
        image.close()
        raise InputError(f"{image.width}×{image.height} pixels are more than {_MOST_PIXELS:,}")
    return image


def as_text(name: str) -> str:
    """The name of a file or folder without the bytes that are no UTF-8, which no file of text can hold.

    >>> as_text(os.fsdecode(bytes([0x63, 0xE9])))
    'c�'
    """
    return os.fsencode(name).decode(errors="replace")


@dataclass(frozen=True, slots=True)
class ImageFileReader:
    """Image files below ``root``."""

    root: Path
    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> Image.Image:
        """The opened file; its pixels are not decoded yet."""
        return opened(self.paths[index])

    def name(self, index: int) -> str:
        """The path from the root."""
        return as_text(self.paths[index].relative_to(self.root).as_posix())

    def key(self, indices: NDArray[np.int64]) -> str:
        """Names, sizes and times of the files."""
        lines = [str(self.root.resolve())]
        for index in indices:
            path = self.paths[index]
            known = path.stat() if path.exists() else None
            lines.append(f"{path.relative_to(self.root).as_posix()}\0{known and (known.st_size, known.st_mtime_ns)}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, eq=False)
class ImageArrayReader:
    """Pixels uint8 (N, H, W, C) in memory or in a map; ``made_from``: the key of what they were made from, if known."""

    pixels: NDArray[np.uint8]
    label: str = ""
    made_from: str | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def open(self, index: int) -> Image.Image:
        """The picture of a row."""
        row = self.pixels[index]
        return Image.fromarray(row if row.shape[2] == 3 else row[..., 0])

    def name(self, index: int) -> str:
        """The label with the row's number."""
        return f"{self.label}[{index}]"

    def key(self, indices: NDArray[np.int64]) -> str:
        """The hash of the rows, or what they were made from."""
        digest = hashlib.sha256(indices.tobytes())
        if self.made_from is None:
            rows = chunk_size(self.pixels[:1].size)
            for start in range(0, len(indices), rows):
                digest.update(self.pixels[indices[start : start + rows]].tobytes())
        return f"{self.made_from} {self.pixels.shape} {digest.hexdigest()}"


def read_images(
    reader: ImageReader, indices: NDArray[np.int64], step: Preprocessing, report: OnProgress = lambda share: None
) -> Stored:
    """The images at ``indices`` as ``step`` cuts and resizes them, without those that cannot be read.

    >>> step = resize_step(1, (2, 2))
    >>> read_images(ImageArrayReader(np.zeros((3, 8, 8, 1), np.uint8)), np.array([2, 0]), step).images.shape
    (2, 2, 2, 1)
    """

    def key() -> str:
        text = f"1 {PIL.__version__} {step.to_json()}\n{reader.key(indices)}"
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]

    return stored_images((len(indices), *step.sizes[-1], step.channels), key, _fill(reader, indices, step, report))


def _fill(
    reader: ImageReader, indices: NDArray[np.int64], step: Preprocessing, report: OnProgress
) -> Callable[[NDArray[np.uint8]], Missing]:
    def read(index: int) -> NDArray[np.uint8] | str:
        try:
            with reader.open(index) as image:
                return step.image(image)
        except Exception as error:  # decoders raise all kinds of errors on damaged files; each is told with its name
            return short_reason(error)

    def fill(images: NDArray[np.uint8]) -> Missing:
        place, missing, rows = 0, [], chunk_size(images[:1].size)
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(indices), rows):
                report(start / len(indices))
                some = indices[start : start + rows].tolist()
                for index, image in zip(some, pool.map(read, some), strict=True):
                    if isinstance(image, str):
                        missing.append((index, image))
                    else:
                        images[place] = image
                        place += 1
        return missing

    return fill


def resize_step(channels: int, size: tuple[int, int], bits: int = FULL_DEPTH) -> Preprocessing:
    """Only the cutting and resizing to ``size`` (height, width), of images that use ``bits``.

    >>> resize_step(3, (4, 5)).input_shape
    (3, 4, 5)
    """
    return Preprocessing(
        channels=channels, sizes=(size,), mean=(0.0,) * channels, std=(1.0,) * channels, class_names=(), bits=bits
    )


def usual_shape(reader: ImageReader) -> tuple[int, tuple[int, int]]:
    """Channels and (height, width) for all, from up to 200 images spread over them.

    One channel where all are gray. Their own size where it is the same and at most 160, else a square of the median
    side, at most 160. An InputError where none of them can be read.

    >>> usual_shape(ImageArrayReader(np.zeros((3, 8, 9, 1), np.uint8)))
    (1, (8, 9))
    """
    modes, shapes, failed = set[str](), list[tuple[int, int]](), list[str]()
    for index in range(0, len(reader), -(-len(reader) // _LOOKED_AT) or 1):
        try:
            with reader.open(index) as image:
                modes.add(image.mode)
                shapes.append(upright_size(image))
        except Exception as error:  # as above; whether it matters is decided when all are read
            failed.append(f"{reader.name(index)} ({' '.join(str(error).split())[:200]})")
    if not shapes:
        raise InputError(f"none of the first {len(failed)} images can be read: {', '.join(failed[:3])}")
    shape = shapes[0]
    if len(set(shapes)) > 1 or max(shape) > _LARGEST_SIDE:
        side = min(_LARGEST_SIDE, int(np.median([min(s) for s in shapes])))
        shape = (side, side)
    return (1 if modes <= _GRAY_MODES else 3), shape
