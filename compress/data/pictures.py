"""Single-split datasets for methods that only look at images: a folder, with or without classes, or arrays."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset import Dataset, Split, channel_statistics
from compress.data.decoding import ImageFileReader, ImageReader, read_images, resize_step
from compress.data.network_inputs import Inputs, NetworkInputs, sides_of
from compress.data.preprocessing import Preprocessing
from compress.data.sources.archives import is_archive, unpacked
from compress.data.sources.folder_layout import content_root, images_below
from compress.data.sources.image_folder import open_folder
from compress.data.sources.image_source import ImageSource, LabeledImages
from compress.data.sources.left_out import LeftOut
from hw_profiles.errors import InputError

log = logging.getLogger("fitnas")

_NAME = "the given images"
NO_LABELS: NDArray[np.int64] = np.empty(0, np.int64)


def load_pictures(source: Path, *, size: tuple[int, int] | None = None, channels: int | None = None) -> Dataset:
    """All images of a folder, or of a zip or tar, as one part; ``size`` (height, width).

    They have labels where the folder says them (:func:`compress.data.sources.image_folder.open_folder`); else all
    images below it are taken, whatever folders they lie in.

    Raises:
        InputError: no image, or images that cannot be read.
    """
    folder = unpacked(source) if is_archive(source) else source
    try:
        found = open_folder(folder)
    except InputError as error:
        log.info("--data %s: read as unlabeled images (%s)", source, error)
        found = _without_classes(source, content_root(folder))
    found.left_out.tell(str(source))
    step = resize_step(channels or found.channels, size or found.size, found.bits)
    parts = [(_read(source, part.reader, step), part.labels) for part in found.parts.values()]
    pixels, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    data = pixels_dataset(pixels, labels if found.class_names else NO_LABELS, bits=step.bits, name=source.name)
    return replace(data, preprocessing=replace(data.preprocessing, class_names=found.class_names))


def _without_classes(source: Path, folder: Path) -> ImageSource:
    left = LeftOut()
    paths = sorted(images_below(folder, folder.resolve(), left), key=lambda path: path.parts)
    if not paths:
        raise InputError(f"--data {source}: no images found{f' ({left.text()})' if left.counts else ''}")
    part = LabeledImages(reader=ImageFileReader(folder, paths), labels=np.zeros(len(paths), np.int64))
    return ImageSource.of({"train": part}, (), left)


def _read(source: Path, reader: ImageReader, step: Preprocessing) -> NDArray[np.uint8]:
    stored = read_images(reader, np.arange(len(reader)), step)
    if stored.missing:
        index, why = stored.missing[0]
        raise InputError(
            f"--data {source}: {len(stored.missing)} of {len(reader)} images cannot be read, such as "
            f"{reader.name(index)} ({why}); fix or remove them"
        )
    return stored.images


def pixels_dataset(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64] = NO_LABELS, *, bits: int = 16, name: str = _NAME
) -> Dataset:
    """Images (N, H, W) or (N, H, W, 1 or 3) in bytes as a data set of one part, with their mean and deviation.

    >>> data = pixels_dataset(np.zeros((4, 8, 8, 3), np.uint8))
    >>> len(data.train), data.train.is_labeled, data.num_classes
    (4, False, 0)
    """
    x = pixels[..., None] if pixels.ndim == 3 else pixels
    if x.ndim != 4 or x.shape[3] not in (1, 3) or not x.size:
        raise InputError(f"images in bytes must be (N, H, W) or (N, H, W, 1 or 3), got {pixels.shape}")
    mean, std = channel_statistics(x)
    record = Preprocessing(
        channels=x.shape[3], sizes=((x.shape[1], x.shape[2]),), mean=mean, std=std, class_names=(), bits=bits
    )
    return _of_one_part(x, labels, record, name)


def inputs_dataset(inputs: Inputs, labels: NDArray[np.int64] = NO_LABELS) -> Dataset:
    """Inputs as a network reads them, of any rank, as a data set of one part.

    >>> inputs_dataset(np.zeros((4, 7), np.float32)).preprocessing.input_shape
    (7,)
    """
    return _of_one_part(inputs, labels, NetworkInputs(shape=sides_of(inputs)), "the given inputs")


def _of_one_part(images: Any, labels: NDArray[np.int64], record: Preprocessing, name: str) -> Dataset:
    split = Split(images, labels)
    return Dataset(name=name, train=split, val=split, test=split, preprocessing=record)
