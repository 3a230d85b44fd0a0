"""Which folders of a folder of images are splits, which are classes, and which are neither."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from compress.data.decoding import as_text
from compress.data.sources.left_out import LeftOut
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean

SUFFIXES = frozenset(
    {
        ".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".pjp",
        ".pjpeg", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
    }
)  # fmt: skip
_TABLES = ("labels.csv", "groups.csv")
SPLITS = ("train", "val", "test")
_SPLIT_OF = {
    name: split
    for split, names in {
        "train": ("train", "training"),
        "val": ("val", "valid", "validation"),
        "test": ("test", "testing"),
    }.items()
    for word in names
    for name in (word, f"{word}_set", f"{word}-set", f"{word} set", f"{word}set")
}
_OF_NO_CLASS = frozenset({*_SPLIT_OF, "images", "unknown", "unlabeled", "unlabelled"})
_SYSTEM_FOLDERS = frozenset(
    {
        "__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found",
        "__pycache__",
    }
)  # fmt: skip
HIDDEN = "in hidden or system folders"
BESIDE = "beside the folders of classes"


def is_image(name: str) -> bool:
    """Whether a file is called as images are.

    >>> is_image("a.JPG"), is_image("a.txt"), is_image("._a.jpg")
    (True, False, False)
    """
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def is_table(name: str) -> bool:
    """Whether a file is called as a table of labels or groups, in any case.

    >>> is_table("Labels.CSV")
    True
    """
    return name.casefold() in _TABLES


def table_in(folder: Path, name: str) -> Path:
    """The table of that name in a folder, however its letters are written there."""
    found = (path for path in sorted(folder.iterdir()) if path.name.casefold() == name)
    return next(found, folder / name)


def is_hidden(folder: str) -> bool:
    """Whether a folder of that name holds what a system keeps, not a user.

    >>> is_hidden(".thumbnails"), is_hidden("@eaDir"), is_hidden("cat")
    (True, True, False)
    """
    return folder.startswith(".") or folder.casefold() in _SYSTEM_FOLDERS


def visible_folders(folder: Path) -> list[str]:
    """The names of its folders, hidden and system ones left out."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def class_folders(folder: Path) -> dict[str, Path]:
    """The folders of classes by the names of these, as text, whose accents are composed, as systems differ in that.

    Raises:
        InputError: two folders have one name.
    """
    found: dict[str, Path] = {}
    for each in visible_folders(folder):
        name = unicodedata.normalize("NFC", as_text(each))
        if name in found:
            raise InputError(f"{folder}: has two folders called {name!r}, written in two ways; put them together")
        found[name] = folder / each
    return dict(sorted(found.items()))


def content_root(root: Path) -> Path:
    """The folder that holds the classes or splits: ``root``, or the only folder in it, as archives are packed.

    >>> content_root(Path("."))
    PosixPath('.')
    """
    while True:
        names = visible_folders(root)
        if len(names) != 1 or names[0].casefold() in _SPLIT_OF or (root / names[0]).is_symlink():
            return root
        holds = [path.name for path in root.iterdir() if is_image(path.name) or is_table(path.name)]
        inner = root / names[0]
        if holds or not (visible_folders(inner) or any(table_in(inner, table).is_file() for table in _TABLES)):
            return root
        root = inner


def split_of(folder: str) -> str | None:
    """The split that a folder is called for, in any case.

    >>> split_of("Validation"), split_of("cat")
    ('val', None)
    """
    return _SPLIT_OF.get(folder.casefold())


def split_folders(root: Path, left: LeftOut) -> dict[str, Path]:
    """The folder of each split that has folders of classes; ``{"train": root}`` where none has.

    Raises:
        InputError: two folders of one split, splits without train or without classes, or folders of images beside the
            splits.
    """
    names = visible_folders(root)
    with_classes = [name for name in names if split_of(name) and visible_folders(root / name)]
    found: dict[str, Path] = {}
    for split in SPLITS:
        of_split = [name for name in with_classes if split_of(name) == split]
        if len(of_split) > 1:
            raise InputError(f"--data {root}: {of_split[0]}/ and {of_split[1]}/ both are the {split} split; merge them")
        if of_split:
            found[split] = root / of_split[0]
    if not found:
        _check_no_splits(root, names)
        return {"train": root}
    if "train" not in found:
        raise InputError(f"--data {root}: holds {' and '.join(with_classes)}/ with classes in it but no train/")
    count_beside(root, left)
    _leave_others(root, [name for name in names if name not in with_classes], left)
    known = visible_folders(found["train"])
    return {split: path for split, path in found.items() if split == "train" or not _has_no_classes(path, known, left)}


def _check_no_splits(root: Path, names: Sequence[str]) -> None:
    """Refuse folders of images that are called as splits are, also train2017 and val2017, in place of classes."""
    called = {split_of(name.rstrip("0123456789_- ")) for name in names}
    if "train" in called and None not in called and (len(called) > 1 or len(names) == 1):
        raise InputError(
            f"--data {root}: no classes, {' and '.join(f'{name}/' for name in names)} must hold one subfolder of "
            "images per class, or a file labels.csv must list the images"
        )


def _has_no_classes(folder: Path, known: Sequence[str], left: LeftOut) -> bool:
    """Whether its only folder is called as the images of no class are, such as test/test/ or test/unknown/."""
    names = visible_folders(folder)
    if len(names) != 1 or names[0] in known or names[0].casefold() not in _OF_NO_CLASS:
        return False
    left.add(_without_classes(folder.name), _images_in(folder))
    return True


def _leave_others(root: Path, names: Sequence[str], left: LeftOut) -> None:
    """Count what lies in folders that are no split with classes; those of no split may hold no images."""
    for name in names:
        count = _images_in(root / name)
        if split_of(name):
            left.add(_without_classes(name), count)
        elif count:
            hint = did_you_mean(name, ("train", "val", "test"))
            raise InputError(
                f"--data {root}: unexpected folder {name}/ next to train/, only val/ and test/ are allowed{hint}"
            )
        else:
            for path in files_below(root / name):
                left.add_kind(path.suffix)


def _images_in(folder: Path) -> int:
    return sum(is_image(path.name) for path in files_below(folder))


def _without_classes(name: str) -> str:
    return f"under {name}/, which has no folders of classes"


def count_beside(folder: Path, left: LeftOut) -> None:
    """Count the files that lie in a folder itself, beside its folders of classes, and in hidden folders of it."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            left.add(HIDDEN, sum(1 for _ in files_below(path)) if is_hidden(path.name) else 0)
        elif is_image(path.name):
            left.add(BESIDE)
        elif not is_table(path.name):
            left.add_kind(path.suffix)


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder; links to folders are not followed."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names)


def images_below(folder: Path, top: Path, left: LeftOut) -> Iterator[Path]:
    """The images below a folder; what else is there is counted.

    Raises:
        InputError: a link that leads out of ``top``.
    """
    check_inside(folder, top)
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                if is_hidden(entry.name):
                    left.add(HIDDEN, sum(1 for _ in files_below(path)))
                else:
                    yield from images_below(path, top, left)
            elif is_image(entry.name):
                if entry.is_symlink():
                    check_inside(path, top)
                if entry.is_file() or not path.exists():
                    yield path
                else:
                    left.add_kind("no file")
            elif entry.is_dir():
                left.add("links to folders, which are not followed")
            elif not (is_table(entry.name) and folder.resolve() == top):
                left.add_kind(path.suffix)


def check_inside(path: Path, top: Path) -> None:
    """Refuse a link that leads out of ``top``."""
    try:
        inside = path.resolve().is_relative_to(top)
    except (RuntimeError, OSError):  # a link to itself
        inside = False
    if not inside:
        raise InputError(f"{path}: the symbolic link is broken or points outside {top}; copy the files instead")
