"""Labelled images: the digits of scikit-learn, a folder, or an .npz file; split by a seed, stratified."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.preprocessing import Preprocessing

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
_GREY_MODES = {"1", "L", "I;16", "I", "F", "LA"}
_LARGEST_SIDE = 160
_TEST_SHARE = 0.2
_VAL_SHARE = 0.15
_MOST_VAL = 5000
_LARGEST_NPZ = 16 * 1024**3
_DIGITS_SIDE = 32

OnProgress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Split:
    """``images`` uint8 (N, H, W, C) and ``labels`` int64 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Split:
        """The images at ``indices``."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Three splits of one size, and how an image becomes the network's input."""

    name: str
    train: Split
    val: Split
    test: Split
    preprocessing: Preprocessing

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.preprocessing.class_names)

    def resized(self, height: int, width: int) -> Dataset:
        """The same images at another size, the step recorded in the preprocessing."""
        if self.preprocessing.sizes[-1] == (height, width):
            return self
        step = replace(self.preprocessing, sizes=((height, width),))
        return replace(
            self,
            train=_resize(self.train, step),
            val=_resize(self.val, step),
            test=_resize(self.test, step),
            preprocessing=replace(self.preprocessing, sizes=(*self.preprocessing.sizes, (height, width))),
        )


def load_data(source: str, *, seed: int = 0, size: int | None = None, on_progress: OnProgress | None = None) -> Dataset:
    """The images of ``"digits"``, of a folder or of an ``.npz`` file.

    A folder holds one folder of images for each class, or such folders under ``train/`` and, as wished, ``val/`` and
    ``test/``. An .npz file holds x_train, y_train, x_test and y_test; images are uint8 (N, H, W) or (N, H, W, C).
    What is not given is split off by the seed, the same share of each class. ``size`` is the side to which images are
    resized; by default their own, or the median side but at most 160 where sizes differ.

    Raises:
        ValueError: no such data, an unreadable image, fewer than two classes, or a class too small to be split.

    >>> data = load_data("digits")
    >>> data.num_classes, data.preprocessing.input_shape
    (10, (1, 32, 32))
    """
    report = on_progress or (lambda share: None)
    path = Path(source)
    if source == "digits":
        splits, names, sizes = _digits(size)
    elif path.is_dir():
        splits, names, sizes = _folder(path, size, report)
    elif path.suffix == ".npz" and path.is_file():
        splits, names, sizes = _npz(path, size)
    else:
        raise ValueError(
            f"--data must be digits, a folder of images or an .npz file, got {source!r}: it does not exist"
        )
    train, val, test = _three_splits(splits, names, seed)
    mean, std = _statistics(train)
    channels = train.images.shape[3]
    preprocessing = Preprocessing(channels=channels, sizes=sizes, mean=mean, std=std, class_names=tuple(names))
    return Dataset(name=path.name, train=train, val=val, test=test, preprocessing=preprocessing)


Loaded = tuple[dict[str, Split], list[str], tuple[tuple[int, int], ...]]


def _digits(size: int | None) -> Loaded:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    side = size or _DIGITS_SIDE
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    step = _resize_step(1, (side, side))
    split = _resize(Split(pixels[..., None], bunch.target.astype(np.int64)), step)
    return {"train": split}, [str(i) for i in range(10)], step.sizes


def _npz(path: Path, size: int | None) -> Loaded:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST_NPZ:
                raise ValueError(f"{path}: the arrays must be at most 16 GiB together")
        with np.load(path, allow_pickle=False) as arrays:
            wanted = [f"{axis}_{split}" for split in ("train", "test") for axis in "xy"]
            missing = [name for name in wanted if name not in arrays]
            if missing:
                raise ValueError(f"{path}: must hold {', '.join(wanted)}; missing: {', '.join(missing)}")
            raw = {s: _npz_split(path, arrays[f"x_{s}"], arrays[f"y_{s}"]) for s in ("train", "test")}
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path}: not an .npz file ({error})") from None
    classes, flat = np.unique(np.concatenate([raw["train"].labels, raw["test"].labels]), return_inverse=True)
    border = len(raw["train"])
    splits = {"train": Split(raw["train"].images, flat[:border]), "test": Split(raw["test"].images, flat[border:])}
    height, width, channels = raw["train"].images.shape[1:]
    sizes: tuple[tuple[int, int], ...] = ((height, width),)
    if size is not None:
        step = _resize_step(channels, (size, size))
        splits = {name: _resize(split, step) for name, split in splits.items()}
        sizes = step.sizes
    return splits, [str(c) for c in classes], sizes


def _npz_split(path: Path, x: NDArray[Any], y: NDArray[Any]) -> Split:
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] not in (1, 3)):
        raise ValueError(f"{path}: images must be uint8 (N, H, W) or (N, H, W, 1 or 3), got {x.dtype} {x.shape}")
    if y.ndim != 1 or len(y) != len(x) or y.dtype.kind not in "iu":
        raise ValueError(f"{path}: labels must be integers, one for each of {len(x)} images, got {y.dtype} {y.shape}")
    return Split(x if x.ndim == 4 else x[..., None], y.astype(np.int64))


def _folder(root: Path, size: int | None, report: OnProgress) -> Loaded:
    given = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    roots = {name: root / name for name in given} if "train" in given else {"train": root}
    names = sorted(p.name for p in roots["train"].iterdir() if p.is_dir() and not p.name.startswith("."))
    files = {split: _class_files(folder, names) for split, folder in roots.items()}
    if not any(paths for paths, _ in files.values()):
        raise ValueError(f"--data {root}: must hold one folder of images for each class, no image was found")
    step = _folder_step(files["train"][0], size)
    total = sum(len(paths) for paths, _ in files.values())
    done, splits = 0, {}
    for split, (paths, labels) in files.items():
        images = _read_images(paths, step, _part(report, done / total, len(paths) / total))
        splits[split] = Split(images, np.array(labels))
        done += len(paths)
    return splits, names, step.sizes


def _part(report: OnProgress, start: float, share: float) -> OnProgress:
    return lambda done: report(start + share * done)


def _class_files(folder: Path, names: Sequence[str]) -> tuple[list[Path], list[int]]:
    unknown = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in names and p.name[0] != ".")
    if unknown:
        raise ValueError(f"{folder}: the class {unknown[0]!r} has no folder under train/")
    pairs = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in _SUFFIXES and path.is_file()
    ]
    return [path for path, _ in pairs], [label for _, label in pairs]


def _folder_step(paths: Sequence[Path], size: int | None) -> Preprocessing:
    """Channels and size, judged by up to 200 images spread over all."""
    seen = [_open(path) for path in paths[:: max(1, len(paths) // 200)]]
    channels = 1 if all(image.mode in _GREY_MODES for image in seen) else 3
    shapes = {(image.height, image.width) for image in seen}
    shape = next(iter(shapes))
    if size is not None:
        shape = (size, size)
    elif len(shapes) > 1 or max(shape) > _LARGEST_SIDE:
        side = min(_LARGEST_SIDE, int(np.median([min(s) for s in shapes])))
        shape = (side, side)
    return _resize_step(channels, shape)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from None


def _read_images(paths: Sequence[Path], step: Preprocessing, report: OnProgress) -> NDArray[np.uint8]:
    images = np.empty((len(paths), *step.sizes[-1], step.channels), np.uint8)
    with ThreadPoolExecutor() as pool:
        for i, image in enumerate(pool.map(lambda path: step.image(_open(path)), paths)):
            images[i] = image
            if i % 500 == 0:
                report(i / len(paths))
    return images


def _resize_step(channels: int, size: tuple[int, int]) -> Preprocessing:
    return Preprocessing(
        channels=channels, sizes=(size,), mean=(0.0,) * channels, std=(1.0,) * channels, class_names=()
    )


def _resize(split: Split, step: Preprocessing) -> Split:
    resized = np.empty((len(split), *step.sizes[-1], step.channels), np.uint8)
    for i, image in enumerate(split.images):
        resized[i] = step.image(Image.fromarray(image if step.channels == 3 else image[..., 0]))
    return Split(resized, split.labels)


def _three_splits(splits: dict[str, Split], names: Sequence[str], seed: int) -> tuple[Split, Split, Split]:
    if len(names) < 2:
        raise ValueError(f"at least two classes are needed, got {len(names)} ({', '.join(names) or 'none'})")
    train = splits["train"]
    test, val = splits.get("test"), splits.get("val")
    if test is None:
        train, test = _split_off(train, _TEST_SHARE, names, seed)
    if val is None:
        train, val = _split_off(train, min(_VAL_SHARE, _MOST_VAL / len(train)), names, seed + 1)
    for name, split in (("train", train), ("val", val), ("test", test)):
        empty = np.setdiff1d(np.arange(len(names)), split.labels)
        if len(empty):
            raise ValueError(f"every class needs images in each split, {names[empty[0]]!r} has none in {name}")
    return train, val, test


def _split_off(split: Split, share: float, names: Sequence[str], seed: int) -> tuple[Split, Split]:
    generator = np.random.default_rng(seed)
    away = []
    for label, name in enumerate(names):
        members = generator.permutation(np.flatnonzero(split.labels == label))
        count = max(1, round(share * len(members)))
        if len(members) - count < 1:
            raise ValueError(f"class {name!r} has {len(members)} images left to split, at least 2 are needed")
        away.append(members[:count])
    taken = np.sort(np.concatenate(away))
    kept = np.setdiff1d(np.arange(len(split)), taken)
    return split.take(kept), split.take(taken)


def _statistics(train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of the training images, 0..1."""
    sample = train.images[:: max(1, len(train) // 5000)].astype(np.float64) / 255
    mean, std = sample.mean(axis=(0, 1, 2)), sample.std(axis=(0, 1, 2))
    return tuple(round(float(m), 4) for m in mean), tuple(round(float(max(s, 1e-3)), 4) for s in std)
