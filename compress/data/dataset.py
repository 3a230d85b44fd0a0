"""Loads labeled images from any supported source and splits them by a seed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.argument_checks import LARGEST_SEED, is_whole
from compress.data.decoding import ImageArrayReader, OnProgress, read_images, resize_step
from compress.data.duplicate_detection import difference_hashes, near_duplicates
from compress.data.image_cache import chunk_size
from compress.data.preprocessing import Preprocessing
from compress.data.sources.archives import is_archive, unpacked
from compress.data.sources.arrow_dataset import is_arrow_dataset, open_arrow_dataset
from compress.data.sources.image_folder import open_folder
from compress.data.sources.image_source import ImageSource, LabeledImages
from compress.data.sources.npz import open_digits, open_npz
from compress.data.sources.torchvision_datasets import open_torchvision
from compress.data.splits import divide
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean

log = logging.getLogger("fitnas")

_TORCHVISION = "torchvision:"
_SPLITS = ("train", "val", "test")
VAL_SEEN = "trained_on_validation"
"""The fact of data whose validation images are trained on."""
VAL_DRAWN = "validation_drawn"
"""The fact of data whose validation images were drawn from the training images by the seed."""
_FILES_LISTED = 100
_PAIRS_LISTED = 20


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """``images`` uint8 (N, H, W, C) and ``labels`` int64 (N,), none of them where nobody knows them. Where the data are
    no images but what a network reads, ``images`` are these numbers (N, ...) as they are. ``images`` may be a read-only
    ``np.memmap``, so take slices of it; ``key`` then says what it was made from. A split equals itself alone: comparing
    images is for who needs it.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    key: str | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def is_labeled(self) -> bool:
        """Whether the label of each image is known."""
        return len(self.labels) == len(self)

    def take(self, indices: NDArray[np.int64]) -> Split:
        """The images at ``indices``, in memory: for small subsets."""
        return Split(self.images[indices], self.labels[indices] if self.is_labeled else self.labels)

    def some(self, count: int, seed: int) -> Split:
        """At most ``count`` images, drawn by the seed."""
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))

    def spread(self, count: int) -> Split:
        """At most ``count`` images, evenly from the first to the last."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, min(len(self), count)).astype(np.int64)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Dataset:
    """Train, validation and test splits with their preprocessing.

    ``facts`` are JSON types for the report: ``counts`` {split: {class: images}}, ``skipped`` {"count", "files":
    [{"file", "why"}]}, ``left_out`` {reason: files that are not part of the data}, ``near_duplicates`` {"val": images
    with one in train, "test": with one in train or val, "pairs": [[file, other file]]}, and with groups ``groups``
    {split: groups}. ``test_names`` are the file names of the test images.
    """

    name: str
    train: Split
    val: Split
    test: Split
    preprocessing: Preprocessing
    facts: Mapping[str, Any] = field(default_factory=dict)
    test_names: tuple[str, ...] = ()

    @property
    def distinct_splits(self) -> tuple[Split, ...]:
        """Train, val and test; one that stands for several of them once."""
        return tuple({id(split): split for split in (self.train, self.val, self.test)}.values())

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.preprocessing.class_names)

    def training_on_validation(self) -> Dataset:
        """The same, but with the validation images among those that are trained on, too: for a network about which
        nothing is left to decide. What it gets right of the validation images says nothing from then on."""
        images = np.concatenate([self.train.images, self.val.images])
        labels = np.concatenate([self.train.labels, self.val.labels])
        return replace(self, train=Split(images, labels), facts={**self.facts, VAL_SEEN: True})

    def resized(self, height: int, width: int) -> Dataset:
        """The same images at another size, the step recorded in the preprocessing."""
        if self.preprocessing.sizes[-1] == (height, width):
            return self
        step = replace(self.preprocessing, sizes=((height, width),))
        resized = {id(split): _resize(split, step) for split in self.distinct_splits}
        return replace(
            self,
            train=resized[id(self.train)],
            val=resized[id(self.val)],
            test=resized[id(self.test)],
            preprocessing=replace(self.preprocessing, sizes=(*self.preprocessing.sizes, (height, width))),
        )


def load_data(
    source: str | Path,
    *,
    seed: int = 0,
    size: int | None = None,
    unreadable: str = "refuse",
    on_progress: OnProgress | None = None,
) -> Dataset:
    """Load an image dataset and split it.

    A folder contains one subfolder of images per class, optionally split into ``train/``, ``val/`` and ``test/`` (also
    called training, valid, validation, testing; in any case). A file ``labels.csv`` (header ``file,label``, paths
    relative to the folder) may define the classes instead. With a file ``groups.csv`` (header ``file,group``, one row
    per image) all images of a group are put into one split. Ignored files, such as hidden folders and a ``test/``
    without classes, are counted in one line of the log and in ``facts``. Splits larger than 256 MiB are cached on disk.

    Args:
        source: ``"digits"``, a folder, a zip or tar archive of one, a folder saved by Hugging Face's ``datasets``, an
            ``.npz`` file with x_train, y_train, x_test and y_test, optionally x_val and y_val (images uint8 (N, H, W)
            or (N, H, W, C)), or ``"torchvision:NAME"``.
        seed: random seed. Missing splits are drawn with it, stratified by class.
        size: side length to which images are resized; by default the original size if all images have the same size,
            otherwise the median, at most 160.
        unreadable: ``"refuse"`` raises an error if an image cannot be read, ``"skip"`` lists such images in ``facts``.
        on_progress: called with the finished share between 0 and 1.

    Returns:
        The dataset with its splits and preprocessing.

    Raises:
        InputError: no such data, unreadable images, fewer than two classes, or a class too small to be split.
        OSError: no room on the disk (ENOSPC).

    >>> data = load_data("digits")
    >>> data.num_classes, data.preprocessing.input_shape
    (10, (1, 32, 32))
    """
    if unreadable not in ("refuse", "skip"):
        raise InputError(
            f"unreadable must be refuse or skip, got {unreadable!r}{did_you_mean(unreadable, ['refuse', 'skip'])}"
        )
    if not isinstance(source, str | Path):
        raise InputError(f"data must be a name or a path, got {type(source).__name__}")
    if not is_whole(seed, 0, LARGEST_SEED):
        raise InputError(f"seed must be an integer between 0 and {LARGEST_SEED}, got {seed!r}")
    source = str(source)
    found = _open(source)
    found.left_out.tell(source)
    names = found.class_names
    if len(names) < 2:
        raise InputError(f"--data {source}: at least two classes are needed, got {len(names)} ({', '.join(names)})")
    step = resize_step(found.channels, found.size if size is None else (size, size), found.bits)
    read = _read(found, _choose(found, seed), step, on_progress or (lambda share: None))
    _check_missing(source, read, unreadable)
    _check_classes(read, names)
    splits = {name: each.split for name, each in read.items()}
    mean, std = channel_statistics(splits["train"].images)
    return Dataset(
        name=_name(source),
        preprocessing=replace(step, mean=mean, std=std, class_names=names),
        facts={
            **_facts(read, names),
            VAL_DRAWN: "val" not in found.parts,
            "left_out": dict(found.left_out.counts),
        },
        test_names=tuple(map(read["test"].name, range(len(read["test"].split)))),
        **splits,
    )


def _open(source: str) -> ImageSource:
    path = Path(source)
    if source == "digits":
        if path.exists():
            log.warning("--data digits: the built-in dataset is used; for what is called so here, use ./digits")
        return open_digits()
    if source.startswith(_TORCHVISION):
        return open_torchvision(source.removeprefix(_TORCHVISION))
    if path.is_dir():
        return open_arrow_dataset(path) if is_arrow_dataset(path) else open_folder(path)
    if path.suffix.lower() == ".npz" and path.is_file():
        return open_npz(path)
    if is_archive(path):
        return _open_unpacked(path)
    valid = "digits, a folder of images, a zip or tar of one, an .npz file or torchvision:NAME"
    what = "has an unsupported format" if path.exists() else "does not exist"
    raise InputError(f"--data: {source!r} {what}{did_you_mean(source, ['digits'])} (expected {valid})")


def _open_unpacked(path: Path) -> ImageSource:
    folder = unpacked(path)
    try:
        return open_folder(folder)
    except InputError as error:
        raise InputError(str(error).replace(str(folder), str(path))) from None


def _name(source: str) -> str:
    """What a user would call it; ``.`` and ``..`` are the names of no folder.

    >>> _name("photos/cats/"), _name("torchvision:MNIST"), _name(".") == Path.cwd().name
    ('cats', 'torchvision:MNIST', True)
    """
    path = Path(source)
    return path.name if path.name not in ("", "..") else path.resolve().name or str(path.resolve())


def _choose(found: ImageSource, seed: int) -> dict[str, tuple[LabeledImages, NDArray[np.int64]]]:
    """The part of each split and its indices there."""
    train = found.parts["train"]
    wanted = [name for name in ("test", "val") if name not in found.parts]
    chosen = {name: (part, np.arange(len(part.labels))) for name, part in found.parts.items()}
    divided = divide(train.labels, found.class_names, wanted, seed, train.groups)
    chosen.update({name: (train, indices) for name, indices in divided.items()})
    return {name: chosen[name] for name in _SPLITS}


@dataclass(frozen=True, slots=True)
class _Read:
    """A split, the name of each of its images, those that could not be read, and its groups."""

    split: Split
    part: LabeledImages
    indices: NDArray[np.int64]
    missing: list[tuple[str, str]]

    def name(self, index: int) -> str:
        return self.part.reader.name(int(self.indices[index]))


def _read(
    found: ImageSource,
    chosen: Mapping[str, tuple[LabeledImages, NDArray[np.int64]]],
    step: Preprocessing,
    report: OnProgress,
) -> dict[str, _Read]:
    total = sum(len(indices) for _, indices in chosen.values())
    done, read = 0, {}
    for name, (part, indices) in chosen.items():
        stored = read_images(part.reader, indices, step, _share_of(report, done / total, len(indices) / total))
        kept = indices[~np.isin(indices, [index for index, _ in stored.missing])]
        missing = [(part.reader.name(index), why) for index, why in stored.missing]
        read[name] = _Read(Split(stored.images, part.labels[kept], stored.key), part, kept, missing)
        done += len(indices)
    return read


def _share_of(report: OnProgress, start: float, share: float) -> OnProgress:
    return lambda done: report(start + share * done)


def _check_missing(source: str, read: Mapping[str, _Read], unreadable: str) -> None:
    missing = [each for split in read.values() for each in split.missing]
    if missing and unreadable == "refuse":
        first = ", ".join(f"{name} ({why})" for name, why in missing[:3])
        total = len(missing) + sum(len(each.split) for each in read.values())
        raise InputError(
            f"--data {source}: {len(missing)} of {total} images cannot be read: {first}"
            f"{' and others' if len(missing) > 3 else ''}; fix or remove them, or set unreadable=skip to ignore them"
        )


def _check_classes(read: Mapping[str, _Read], names: Sequence[str]) -> None:
    counts = {split: np.bincount(each.split.labels, minlength=len(names)) for split, each in read.items()}
    for split, some in counts.items():
        for i in np.flatnonzero(some == 0)[:1]:
            elsewhere = [f"{other} has {n}" for other, each in counts.items() if (n := int(each[i]))]
            raise InputError(
                f"every class needs images in each split, but {names[i]!r} has none in {split} "
                f"({', '.join(elsewhere) or 'nor in any other'})"
            )


def _resize(split: Split, step: Preprocessing) -> Split:
    stored = read_images(ImageArrayReader(split.images, made_from=split.key), np.arange(len(split)), step)
    assert not stored.missing
    return Split(stored.images, split.labels, stored.key)


def channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of up to 10,000 of the images (N, H, W, C), 0..1."""
    chosen = np.arange(0, len(images), max(1, len(images) // 5000))
    total, squares, count, rows = np.zeros(()), np.zeros(()), 0, chunk_size(images[:1].size)
    for start in range(0, len(chosen), rows):
        sample = images[chosen[start : start + rows]]
        total = total + sample.sum(axis=(0, 1, 2), dtype=np.float64)
        squares = squares + np.square(sample, dtype=np.float32).sum(axis=(0, 1, 2), dtype=np.float64)
        count += sample[..., 0].size
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return tuple(round(float(m / 255), 4) for m in mean), tuple(round(float(max(s / 255, 1e-3)), 4) for s in std)


def _facts(read: Mapping[str, _Read], names: Sequence[str]) -> dict[str, Any]:
    missing = [each for split in read.values() for each in split.missing]
    counts = {split: np.bincount(each.split.labels, minlength=len(names)) for split, each in read.items()}
    facts: dict[str, Any] = {
        "counts": {split: dict(zip(names, map(int, some), strict=True)) for split, some in counts.items()},
        "skipped": {
            "count": len(missing),
            "files": [{"file": name, "why": why} for name, why in missing[:_FILES_LISTED]],
        },
        "near_duplicates": _near_duplicates(read),
    }
    if any(each.part.groups is not None for each in read.values()):
        facts["groups"] = {
            split: 0 if each.part.groups is None else len(np.unique(each.part.groups[each.indices]))
            for split, each in read.items()
        }
    return facts


def _near_duplicates(read: Mapping[str, _Read]) -> dict[str, Any]:
    hashes = {split: difference_hashes(each.split.images) for split, each in read.items()}
    counts, pairs = {}, []
    for split, others in (("val", ("train",)), ("test", ("train", "val"))):
        open_ones = np.ones(len(read[split].split), bool)
        for other in others:
            images, known = read[split].split.images, read[other].split.images
            found = near_duplicates(images, known, hashes[split], hashes[other])
            alike = np.flatnonzero((found >= 0) & open_ones)
            open_ones[alike] = False
            pairs += [[read[split].name(int(i)), read[other].name(int(found[i]))] for i in alike]
        counts[split] = int(np.sum(~open_ones))
    return {**counts, "pairs": pairs[:_PAIRS_LISTED]}
