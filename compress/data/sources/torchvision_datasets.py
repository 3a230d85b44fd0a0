"""Classification datasets of torchvision, downloaded once into the cache folder."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.data.sources.image_source import ImageSource, LabeledImages
from hw_profiles.errors import InputError, short_reason
from hw_profiles.spelling_suggestions import did_you_mean
from hw_profiles.user_folders import cache_folder

_TIMEOUT_SECONDS = 30.0
_BY_FLAG: Mapping[str, Mapping[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_BY_NAME: Mapping[str, Mapping[str, Any]] = {"train": {"split": "train"}, "test": {"split": "test"}}
_WITH_VAL: Mapping[str, Mapping[str, Any]] = {**_BY_NAME, "val": {"split": "val"}}

# name -> the arguments that choose each given split
SETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "MNIST": _BY_FLAG,
    "FashionMNIST": _BY_FLAG,
    "KMNIST": _BY_FLAG,
    "USPS": _BY_FLAG,
    "CIFAR10": _BY_FLAG,
    "CIFAR100": _BY_FLAG,
    "SVHN": _BY_NAME,
    "STL10": _BY_NAME,
    "GTSRB": _BY_NAME,
    "Food101": _BY_NAME,
    "RenderedSST2": _WITH_VAL,
    "DTD": _WITH_VAL,
    "FGVCAircraft": _WITH_VAL,
    "Flowers102": _WITH_VAL,
    "OxfordIIITPet": {"train": {"split": "trainval"}, "test": {"split": "test"}},
    "EuroSAT": {"train": {}},
}


@dataclass(frozen=True, slots=True)
class _Items:
    """The images of a torchvision data set."""

    label: str
    items: Any

    def __len__(self) -> int:
        return len(self.items)

    def open(self, index: int) -> Image.Image:
        image: Image.Image = self.items[index][0]
        return image

    def name(self, index: int) -> str:
        return f"{self.label}[{index}]"

    def key(self, indices: NDArray[np.int64]) -> str:
        return f"{version('torchvision')} {self.label} {len(self)} {indices.tolist()}"


def open_torchvision(name: str) -> ImageSource:
    """The data set of that name, any case; needs the network once.

    Raises:
        InputError: an unknown name, or a download that failed.
        OSError: a full disk.
    """
    known = {each.lower(): each for each in SETS}
    if name.lower() not in known:
        hint = did_you_mean(name.lower(), known)
        raise InputError(f"torchvision:{name}: unknown dataset{hint}; valid: {', '.join(SETS)}")
    name = known[name.lower()]
    found = {split: _download(name, arguments) for split, arguments in SETS[name].items()}
    labels = {split: _labels(items) for split, items in found.items()}
    count = 1 + max(int(values.max()) for values in labels.values())
    names = getattr(found["train"], "classes", None) or range(count)
    parts = {
        split: LabeledImages(reader=_Items(f"{name} {split}", items), labels=labels[split])
        for split, items in found.items()
    }
    return ImageSource.of(parts, [str(each) for each in names])


def _download(name: str, arguments: Mapping[str, Any]) -> Any:
    import torchvision  # type: ignore[import-untyped]

    folder = cache_folder() / "torchvision" / name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _timeout():
            return getattr(torchvision.datasets, name)(str(folder), download=True, **arguments)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        why = short_reason(error)
        raise InputError(
            f"torchvision:{name}: could not be downloaded into {folder} ({why}); the first download "
            f"needs an internet connection"
        ) from None


@contextmanager
def _timeout() -> Iterator[None]:
    """torchvision downloads without a limit of time, so a silent server would hold the run for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _labels(items: Any) -> NDArray[np.int64]:
    """As the data set keeps them; where it has no public list, each item is opened once more for its label."""
    for attribute in ("targets", "labels"):
        if hasattr(items, attribute):
            return np.asarray(getattr(items, attribute)).astype(np.int64)
    return np.array([items[i][1] for i in range(len(items))], np.int64)
