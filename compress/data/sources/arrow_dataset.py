"""A data set of the Hugging Face library ``datasets`` that ``save_to_disk`` wrote, read through pyarrow."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.data.decoding import opened
from compress.data.sources.folder_layout import check_inside, split_of
from compress.data.sources.image_source import ImageSource, LabeledImages
from compress.data.sources.left_out import LeftOut
from hw_profiles.errors import InputError, short_reason

_DICT, _INFO, _STATE = "dataset_dict.json", "dataset_info.json", "state.json"
_LARGEST_JSON = 64 * 1024**2


def is_arrow_dataset(folder: Path) -> bool:
    """Whether a folder is what ``save_to_disk`` writes."""
    return (folder / _DICT).is_file() or ((folder / _INFO).is_file() and (folder / _STATE).is_file())


def open_arrow_dataset(folder: Path) -> ImageSource:
    """The images and labels of a saved ``Dataset`` or ``DatasetDict``: its only column of images, and the one of
    classes. Splits are called as those of folders are; others, such as ``unsupervised``, are refused. One that has no
    labels is left out.

    Raises:
        InputError: pyarrow is not installed, no such columns, images that lie in files elsewhere, or damaged files.
    """
    names = _json(folder / _DICT).get("splits") if (folder / _DICT).is_file() else None
    if names is None:
        tables = {"train": _table(folder, folder)}
    else:
        splits = {split_of(str(name)): str(name) for name in names}
        if None in splits or len(splits) != len(names) or "train" not in splits:
            raise InputError(
                f"--data {folder}: splits must be train, validation and test, got {', '.join(map(str, names))}"
            )
        tables = {str(split): _table(folder, folder / name) for split, name in splits.items()}
    image, label, classes = _columns(folder, tables["train"])
    left, parts = LeftOut(), dict[str, LabeledImages]()
    for split, table in tables.items():
        if split != "train" and _has_no_labels(table, label):
            left.add(f"in the split {split}, which has no labels", len(table))
            continue
        if split != "train" and _columns(folder, table) != (image, label, classes):
            raise InputError(f"--data {folder}: train and {split} must have the same columns and classes")
        labels = _labels(folder, split, table.column(label), len(classes))
        parts[split] = LabeledImages(reader=_Rows(split, table.column(image)), labels=labels)
    return ImageSource.of(parts, classes, left)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """A column of images: their files' bytes."""

    label: str
    column: Any

    def __len__(self) -> int:
        return len(self.column)

    def open(self, index: int) -> Image.Image:
        return opened(io.BytesIO(self._bytes(index)))

    def name(self, index: int) -> str:
        return f"{self.label}[{index}]"

    def key(self, indices: NDArray[np.int64]) -> str:
        digest = hashlib.sha256()
        for index in indices:
            digest.update(hashlib.sha256(self._bytes(int(index))).digest())
        return digest.hexdigest()

    def _bytes(self, index: int) -> bytes:
        data = self.column[index]["bytes"].as_py()
        if not isinstance(data, bytes):
            raise InputError("the dataset stores only the name of a file, not the image")
        return data


def _table(top: Path, folder: Path) -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        raise InputError(
            f"--data {top}: Hugging Face datasets require pyarrow: pip install fitnas[huggingface]"
        ) from None
    files = _json(folder / _STATE).get("_data_files")
    names = [each.get("filename") for each in files if isinstance(each, dict)] if isinstance(files, list) else []
    tables = []
    for name in names:
        path = folder / str(name)
        check_inside(path, top.resolve())
        try:
            table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()  # its columns keep the map open
            table.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: not an arrow file ({short_reason(error)})") from None
        tables.append(table)
    if not tables:
        raise InputError(f"{folder / _STATE}: names no data files")
    return pa.concat_tables(tables)


def _columns(folder: Path, table: Any) -> tuple[str, str, tuple[str, ...]]:
    """The columns of the images and of the classes, and the names of these."""
    features = _features(folder, table)
    image, label = (_only(folder, features, kind) for kind in ("Image", "ClassLabel"))
    return image, label, tuple(map(str, features[label].get("names") or ()))


def _has_no_labels(table: Any, label: str) -> bool:
    """Whether a split is unlabeled: without that column, or with -1 or nothing in all of it, as test splits are."""
    return label not in table.column_names or {*table.column(label).to_pylist()} <= {-1, None}


def _features(folder: Path, table: Any) -> Mapping[str, Any]:
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        known = {str(name): each for name, each in features.items() if isinstance(each, dict)}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise InputError(f"--data {folder}: its columns are not described") from None
    return {name: each for name, each in known.items() if name in table.column_names}


def _only(folder: Path, features: Mapping[str, Any], kind: str) -> str:
    found = [name for name, each in features.items() if each.get("_type") == kind]
    if len(found) != 1:
        raise InputError(f"--data {folder}: one column of type {kind} is needed, got {', '.join(found) or 'none'}")
    return found[0]


def _labels(folder: Path, split: str, column: Any, classes: int) -> NDArray[np.int64]:
    labels = np.array(column.to_pylist(), dtype=object)
    if not all(isinstance(each, int) and 0 <= each < classes for each in labels):
        raise InputError(f"--data {folder}: each image of {split} needs a label of 0..{classes - 1}")
    return labels.astype(np.int64)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise InputError(f"{path}: must be at most {_LARGEST_JSON:,} bytes")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({short_reason(error)})") from None
    return data if isinstance(data, dict) else {}
