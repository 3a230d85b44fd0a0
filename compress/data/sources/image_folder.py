"""A folder of images: its classes, files, and groups of images that must stay in one split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.data.decoding import ImageFileReader
from compress.data.sources.folder_layout import (
    SPLITS,
    check_inside,
    class_folders,
    content_root,
    count_beside,
    images_below,
    split_folders,
    split_of,
    table_in,
)
from compress.data.sources.folder_tables import FilesByName, file_key, has_column, read_table
from compress.data.sources.image_source import ImageSource, LabeledImages
from compress.data.sources.left_out import LeftOut
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean

_GROUPS, _LABELS = "groups.csv", "labels.csv"
_LONGEST_NUMBER = 18  # digits

Files = tuple[list[Path], NDArray[np.int64]]


def open_folder(folder: Path) -> ImageSource:
    """The labeled files of a folder: one folder for each class, or such folders under ``train/``, ``val/``, ``test/``.

    Splits are also called training, valid, validation and testing, in any case; one without folders of classes is left
    out, and so are hidden folders, those of systems (``@eaDir``, ``__MACOSX``), and files that are no images: the
    source counts them. Where the folder holds one other folder and nothing else, that is the one that is meant.
    A file ``labels.csv`` (header ``file,label``, paths from the folder, or names that only one image has) says the
    classes in place of folders, and a column ``split`` of it the splits; images without a row are left out. A file
    ``groups.csv`` (header ``file,group``) says which images belong together. Links are followed within the folder only.

    Raises:
        InputError: no classes, an unknown class, no image, a link that leads out, a wrong table.
    """
    root, left = content_root(folder), LeftOut()
    table = table_in(root, _LABELS)
    listed, names = _by_table(root, table, left) if table.is_file() else _by_folders(root, left)
    reader = {split: ImageFileReader(root, paths) for split, (paths, _) in listed.items()}
    groups = _groups(root, reader)
    parts = {
        split: LabeledImages(reader=reader[split], labels=labels, groups=groups.get(split))
        for split, (_, labels) in listed.items()
    }
    return ImageSource.of(parts, names, left)


def _by_folders(root: Path, left: LeftOut) -> tuple[dict[str, Files], list[str]]:
    roots = split_folders(root, left)
    classes = class_folders(roots["train"])
    names = list(classes)
    listed = {split: _class_files(root, folder, names, left) for split, folder in roots.items()}
    if not any(paths for paths, _ in listed.values()):
        raise InputError(f"--data {root}: no images found (expected one subfolder of images per class)")
    for (name, folder), count in zip(
        classes.items(), np.bincount(listed["train"][1], minlength=len(names)), strict=True
    ):
        if not count:
            raise InputError(
                f"class {name!r}: {folder} holds no image{_seen(folder, root)}; add some or remove the folder"
            )
    return listed, names


def _seen(folder: Path, root: Path) -> str:
    """What a folder without images holds."""
    left = LeftOut()
    list(images_below(folder, root.resolve(), left))
    return f" ({left.text()})" if left.counts else ""


def _class_files(root: Path, folder: Path, names: Sequence[str], left: LeftOut) -> Files:
    classes = class_folders(folder)
    unknown = [name for name in classes if name not in names]
    if unknown:
        hint = did_you_mean(unknown[0], names)
        raise InputError(f"{folder}: the class {unknown[0]!r} has no folder under train/{hint}")
    count_beside(folder, left)
    top = root.resolve()
    files = [
        sorted(images_below(classes.get(name, folder / name), top, left), key=lambda path: path.parts) for name in names
    ]
    labels = np.repeat(np.arange(len(names), dtype=np.int64), [len(paths) for paths in files])
    return [path for paths in files for path in paths], labels


def _by_table(root: Path, table: Path, left: LeftOut) -> tuple[dict[str, Files], list[str]]:
    """The files of ``labels.csv``, in the splits that a column of it says, or whose folders they all lie in."""
    top = root.resolve()
    check_inside(table, top)
    found = images_below(root, top, left)
    files = FilesByName({file_key(path.relative_to(root).as_posix()): path for path in found}, root)
    label_of = _by_file(table, "label", files)
    if not label_of:
        raise InputError(f"{table}: has no rows")
    left.add("without a row in labels.csv", len(files.paths) - len(label_of))
    names = _in_order(set(label_of.values()))
    number = {name: i for i, name in enumerate(names)}
    if has_column(table, "split"):
        splits = _said_splits(table, files)
    else:
        splits = {file: split_of(file.split("/")[0]) if "/" in file else None for file in label_of}
        if None in splits.values() or "train" not in splits.values():
            splits = dict.fromkeys(label_of, "train")
    listed = {}
    for split in (name for name in SPLITS if name in splits.values()):
        some = sorted((file for file in label_of if splits[file] == split), key=lambda file: files.paths[file].parts)
        labels = np.array([number[label_of[file]] for file in some], np.int64)
        listed[split] = [files.paths[file] for file in some], labels
    return listed, names


def _said_splits(table: Path, files: FilesByName) -> dict[str, str | None]:
    said = _by_file(table, "split", files)
    for file, name in said.items():
        if split_of(name) is None:
            raise InputError(f"{table}: the split of {file!r} must be train, val or test, got {name!r:.80}")
    splits = {file: split_of(name) for file, name in said.items()}
    if "train" not in splits.values():
        found = ", ".join(sorted({*said.values()}))
        raise InputError(f"{table}: the column of splits must say train for some images, got {found}")
    return splits


def _by_file(table: Path, value: str, files: FilesByName) -> dict[str, str]:
    """The value of each file of the folder that a table names."""
    found: dict[str, str] = {}
    for name, each in read_table(table, value).items():
        key = files.key(table, name)
        if key in found:
            raise InputError(f"{table}: {key!r} has two rows, one of them as {name!r}")
        found[key] = each
    return found


def _in_order(names: set[str]) -> list[str]:
    """Sorted, whole numbers by their value.

    >>> _in_order({"10", "9"}), _in_order({"b10", "b9"}), _in_order({"1" * 5000, "2"})[1]
    (['9', '10'], ['b10', 'b9'], '2')
    """
    numbers = all(name.isdecimal() and len(name) <= _LONGEST_NUMBER for name in names)
    return sorted(names, key=lambda name: (int(name), name)) if numbers else sorted(names)


def _groups(root: Path, reader: Mapping[str, ImageFileReader]) -> dict[str, NDArray[np.int64]]:
    """The number of each image's group, for each split; nothing where there is no groups.csv."""
    path = table_in(root, _GROUPS)
    if not path.is_file():
        return {}
    check_inside(path, root.resolve())
    files = {split: [file_key(some.name(i)) for i in range(len(some))] for split, some in reader.items()}
    known = FilesByName({file: path for names in files.values() for file in names}, root)
    group_of = _by_file(path, "group", known)
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
