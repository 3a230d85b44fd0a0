"""Images from .npz files, and the handwritten digits of scikit-learn."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.decoding import ImageArrayReader
from compress.data.sources.image_source import ImageSource, LabeledImages
from compress.data.sources.label_arrays import label_vector
from hw_profiles.errors import InputError, short_reason

_WANTED = ("x_train", "y_train", "x_test", "y_test")
_VALIDATION = ("x_val", "y_val")
_LARGEST_NPZ = 16 * 1024**3
_DIGITS_SIDE = 32


def open_digits() -> ImageSource:
    """1,797 handwritten digits of 8×8 pixels, enlarged to 32×32.

    >>> len(open_digits().parts["train"].labels)
    1797
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    part = LabeledImages(reader=ImageArrayReader(pixels, "digits"), labels=bunch.target.astype(np.int64))
    names = tuple(map(str, range(10)))
    return ImageSource(parts={"train": part}, class_names=names, channels=1, size=(_DIGITS_SIDE, _DIGITS_SIDE))


def open_npz(path: Path) -> ImageSource:
    """The arrays x_train, y_train, x_test and y_test of an .npz file, and x_val and y_val where it has them: images
    uint8 (N, H, W) or (N, H, W, 1 or 3), labels as :func:`compress.data.sources.label_arrays.label_vector` takes them.

    Raises:
        InputError: not such a file, or an array that is missing, of another type or shape, or too large.
    """
    arrays = _arrays(path, [*_WANTED, *(_VALIDATION if {*_VALIDATION} & {*_names(path)} else ())])
    x = {name[2:]: _images(path, name, arrays[name]) for name in arrays if name.startswith("x_")}
    y = {split: label_vector(arrays[f"y_{split}"], len(x[split]), f"{path}: y_{split}") for split in x}
    classes = np.unique(y["train"])
    for split in x:
        if x[split].shape[1:] != x["train"].shape[1:]:
            raise InputError(
                f"{path}: the images of x_train are {x['train'].shape[1:]}, of x_{split} {x[split].shape[1:]}"
            )
        unknown = np.setdiff1d(y[split], classes)
        if len(unknown):
            raise InputError(f"{path}: the class {unknown[0]} of y_{split} has no images in x_train")
    labels = {split: np.searchsorted(classes, y[split]).astype(np.int64) for split in x}
    parts = {split: LabeledImages(reader=ImageArrayReader(x[split], split), labels=labels[split]) for split in x}
    _, height, width, channels = x["train"].shape
    return ImageSource(parts=parts, class_names=tuple(map(str, classes)), channels=channels, size=(height, width))


def open_inputs(path: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of an .npz file by name, as a network reads them; None where it holds images, x_train.

    Raises:
        InputError: not such a file, or arrays that are too large or of no numbers.
    """
    names = _names(path)
    return None if _WANTED[0] in names or not names else _arrays(path, names)


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [entry.filename.removesuffix(".npy") for entry in archive.infolist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: not an .npz file ({error})") from None


def _arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_headers(path, archive, names)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, MemoryError, OSError) as error:
        raise InputError(f"{path}: not an .npz file ({error})") from None


def _check_headers(path: Path, archive: zipfile.ZipFile, names: Sequence[str]) -> None:
    """What the arrays say they are, before memory is taken for them."""
    entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    missing = [name for name in names if name not in entries]
    if missing:
        raise InputError(f"{path}: must hold {', '.join(names)}; missing: {', '.join(missing)}")
    if sum(entries[name].file_size for name in names) > _LARGEST_NPZ:
        raise InputError(f"{path}: the arrays must be at most 16 GiB together")
    for name in names:
        shape, dtype = _header(path, name, archive, entries[name])
        if dtype.hasobject:
            raise InputError(
                f"{path}: {name} holds pickled objects, which are not supported; save it as a numeric array"
            )
        if math.prod(shape) * dtype.itemsize > entries[name].file_size:
            raise InputError(f"{path}: {name} is truncated, its header declares {dtype} {shape}")


def _header(
    path: Path, name: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(entry) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
        except ValueError as error:
            raise InputError(f"{path}: {name} is no array ({short_reason(error)})") from None
    return shape, dtype


def _images(path: Path, name: str, x: NDArray[Any]) -> NDArray[np.uint8]:
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] not in (1, 3)) or 0 in x.shape:
        nan = " with NaN" if x.dtype.kind == "f" and np.isnan(x).any() else ""
        raise InputError(
            f"{path}: {name}: images must be uint8 (N, H, W) or (N, H, W, 1 or 3), got {x.dtype} {x.shape}{nan}"
        )
    return x if x.ndim == 4 else x[..., None]
