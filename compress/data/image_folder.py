"""A folder of images: its classes, files, and groups of images that must stay in one split."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from compress.data.decoding import ImageFileReader
from compress.data.image_source import ImageSource, LabelledImages
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
_SPLITS = ("train", "val", "test")
_GROUPS = "groups.csv"
_LARGEST_GROUPS = 256 * 1024**2


def open_folder(root: Path) -> ImageSource:
    """The labelled files of ``root``: one folder for each class, or such folders under ``train/``, ``val/``, ``test/``.

    Hidden folders and files whose names begin with ``._`` are passed over. Links are followed within ``root`` only.
    A file ``groups.csv`` (header ``file,group``, paths from ``root``) says which images belong together.

    Raises:
        InputError: no classes, an unknown class, no image, a link that leads out, a wrong ``groups.csv``.
    """
    roots = _split_folders(root)
    names = _folders(roots["train"])
    if not names:
        raise InputError(f"--data {root}: must hold one folder of images for each class, no image was found")
    listed = {split: _class_files(root, folder, names) for split, folder in roots.items()}
    if not any(paths for paths, _ in listed.values()):
        raise InputError(f"--data {root}: must hold one folder of images for each class, no image was found")
    for name, count in zip(names, np.bincount(listed["train"][1], minlength=len(names)), strict=True):
        if not count:
            raise InputError(f"class {name!r}: {roots['train'] / name} holds no image; add some or remove the folder")
    reader = {split: ImageFileReader(root, paths) for split, (paths, _) in listed.items()}
    groups = _groups(root, reader)
    parts = {
        split: LabelledImages(reader=reader[split], labels=labels, groups=groups.get(split))
        for split, (_, labels) in listed.items()
    }
    return ImageSource.of(parts, names)


def _split_folders(root: Path) -> dict[str, Path]:
    given = {name: root / name for name in _SPLITS if (root / name).is_dir() and _folders(root / name)}
    if given and "train" not in given:
        raise InputError(f"--data {root}: holds {' and '.join(given)}/ with classes in it but no train/")
    other = [name for name in _folders(root) if name not in given]
    if given and other:
        hint = did_you_mean(other[0], _SPLITS)
        raise InputError(f"--data {root}: beside train/ only val/ and test/ may stand, got {other[0]}/{hint}")
    return given or {"train": root}


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_files(root: Path, folder: Path, names: Sequence[str]) -> tuple[list[Path], NDArray[np.int64]]:
    unknown = [name for name in _folders(folder) if name not in names]
    if unknown:
        hint = did_you_mean(unknown[0], names)
        raise InputError(f"{folder}: the class {unknown[0]!r} has no folder under train/{hint}")
    top = root.resolve()
    files = [sorted(_images(folder / name, top), key=lambda path: path.parts) for name in names]
    labels = np.repeat(np.arange(len(names), dtype=np.int64), [len(paths) for paths in files])
    return [path for paths in files for path in paths], labels


def _images(folder: Path, top: Path) -> Iterator[Path]:
    _check_inside(folder, top)
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _images(path, top)
            elif path.suffix.lower() in _SUFFIXES and not entry.name.startswith("._"):
                if entry.is_symlink():
                    _check_inside(path, top)
                if entry.is_file() or not path.exists():
                    yield path


def _check_inside(path: Path, top: Path) -> None:
    try:
        inside = path.resolve().is_relative_to(top)
    except (RuntimeError, OSError):  # a link to itself
        inside = False
    if not inside:
        raise InputError(
            f"{path}: a link that leads out of {top}, or nowhere, is not followed; put the files themselves there"
        )


def _groups(root: Path, reader: Mapping[str, ImageFileReader]) -> dict[str, NDArray[np.int64]]:
    """The number of each image's group, for each split; nothing where there is no groups.csv."""
    path = root / _GROUPS
    if not path.is_file():
        return {}
    _check_inside(path, root.resolve())
    group_of = _read_groups(path)
    files = {split: [some.name(i) for i in range(len(some))] for split, some in reader.items()}
    known = {file for names in files.values() for file in names}
    for file in group_of:
        if file not in known:
            raise InputError(f"{path}: {file!r} is no image of the folder{did_you_mean(file, sorted(known)[:1000])}")
    numbers = {group: i for i, group in enumerate(dict.fromkeys(group_of.values()))}
    where: dict[str, str] = {}
    for split, names in files.items():
        for file in names:
            if file not in group_of:
                raise InputError(f"{path}: each image must have a row, {file!r} has none")
            before = where.setdefault(group_of[file], split)
            if before != split:
                raise InputError(f"{path}: group {group_of[file]!r} has images under {before}/ and under {split}/")
    return {split: np.array([numbers[group_of[f]] for f in names], np.int64) for split, names in files.items()}


def _read_groups(path: Path) -> dict[str, str]:
    if path.stat().st_size > _LARGEST_GROUPS:
        raise InputError(f"{path}: must be at most {_LARGEST_GROUPS:,} bytes, got {path.stat().st_size:,}")
    group_of: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if header != ["file", "group"]:
                raise InputError(f"{path}: the first line must be 'file,group', got {','.join(header)[:80]!r}")
            for row in rows:
                if len(row) != 2 or not row[0] or not row[1]:
                    raise InputError(
                        f"{path}: line {rows.line_num} must be a file and its group, got {','.join(row)[:80]!r}"
                    )
                name = PurePosixPath(row[0]).as_posix()
                if name in group_of:
                    raise InputError(f"{path}: {name!r} has two rows, the second in line {rows.line_num}")
                group_of[name] = row[1]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a UTF-8 table ({error})") from None
    return group_of
