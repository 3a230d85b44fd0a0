"""The dataset of a call that does not train: with or without labels, any number of classes, any rank."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.class_order import in_order_of
from compress.data.dataset import Dataset, load_data
from compress.data.given_batches import batch_or_call, gathered, is_pixels, named_inputs, numbers
from compress.data.network_inputs import NamedInputs, NetworkInputs, PictureInputs
from compress.data.pictures import NO_LABELS, inputs_dataset, load_pictures, pixels_dataset
from compress.data.sources.archives import is_archive
from compress.data.sources.label_arrays import label_vector
from compress.data.sources.npz import open_inputs
from compress.data.splits import divide
from compress.networks.artifact import Artifact
from hw_profiles.errors import InputError

log = logging.getLogger("fitnas")

Inputs = Any
"""What :func:`calibration_dataset` takes."""
Shape = tuple[int, ...]


GIVEN = "images_given"
"""The fact of how many images were given, those that judge included."""


def calibration_dataset(data: Inputs, seed: int = 0, *, input_shape: Shape | None = None) -> Dataset:
    """What a call that trains nothing is given, as a data set.

    - A Dataset, ``"digits"``, an .npz file or ``torchvision:NAME``: its training images calibrate, those of validation
      judge.
    - A folder (or a zip or tar) with classes: the same; one without classes, or whose classes are too small to be
      split: all its images, for both.
    - Images in bytes (N, H, W) or (N, H, W, 1 or 3); other numbers (N, ...) are what the network reads, of any rank.
    - (images, labels): a part that is drawn by the seed judges, where each class has two images; else all do both.
    - Inputs by name {name: (N, ...)}, for a network of several, or an .npz file of such arrays; a single one in bytes
      (N, H, W, 3) is images.
    - An iterable of batches of these, such as a DataLoader, of which the first 2,048 inputs are read. Inputs by
      name whose first sides differ, as those of a state and of a number do, are all that one call reads.

    ``input_shape`` (C, H, W), where it is known, is the size at which a folder is read.

    Raises:
        InputError: none of these.

    >>> calibration_dataset(np.zeros((4, 1, 8, 8), np.float32)).preprocessing.input_shape
    (1, 8, 8)
    """
    found = _dataset(data, seed, input_shape)
    return replace(found, facts={**found.facts, GIVEN: sum(map(len, found.distinct_splits))})


def _dataset(data: Inputs, seed: int, input_shape: Shape | None) -> Dataset:
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        return _of_path(str(data), seed, input_shape)
    if isinstance(data, Mapping):
        return _of_arrays(named_inputs(data), None)
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple | list | Mapping):
        inputs = numbers(data[0])
        return _of_arrays(inputs, label_vector(data[1], len(inputs)), seed)
    if hasattr(data, "shape"):
        return _of_arrays(numbers(data), None)
    if isinstance(data, Iterable):
        found = gathered(data)
        return _of_arrays(found.inputs, found.labels, seed)
    raise InputError(
        "data must be a Dataset, digits, a folder, a zip or tar, an .npz file, torchvision:NAME, (images, labels), "
        f"images, inputs by name or an iterable of batches, got {type(data).__name__}"
    )


def _of_path(source: str, seed: int, input_shape: Shape | None) -> Dataset:
    path = Path(source)
    is_npz = path.suffix.lower() == ".npz"
    if is_npz and (arrays := open_inputs(path)) is not None:
        return _of_arrays(batch_or_call(arrays), None)
    if source == "digits" or is_npz or not (path.is_dir() or is_archive(path)):
        return load_data(source, seed=seed)
    channels, size = None, None
    if input_shape is not None and len(input_shape) == 3 and input_shape[0] in (1, 3):
        channels, size = input_shape[0], (input_shape[1], input_shape[2])
    try:
        side = size[0] if size is not None and size[0] == size[1] else None
        return load_data(source, seed=seed, size=side)
    except InputError:  # no classes, or classes that are too small to be split
        return load_pictures(path, size=size, channels=channels)


def _of_arrays(inputs: NDArray[Any] | NamedInputs, labels: NDArray[Any] | None, seed: int = 0) -> Dataset:
    if labels is not None and labels.dtype.kind not in "iu":
        raise InputError(f"labels must be the numbers of the network's classes, got {labels.dtype}")
    whole = NO_LABELS if labels is None else labels.astype(np.int64)
    if isinstance(inputs, NamedInputs) and len(inputs.arrays) == 1 and not inputs.whole_calls:
        alone = next(iter(inputs.arrays.values()))
        inputs = alone if is_pixels(alone) else inputs
    if isinstance(inputs, NamedInputs) or not is_pixels(inputs):
        found = inputs_dataset(inputs, whole)
    else:
        found = pixels_dataset(inputs, whole)
    return found if labels is None else _divided(found, seed)


def _divided(data: Dataset, seed: int) -> Dataset:
    """Labeled images that calibrate, and others that judge; all for both where a class has a single one."""
    names, numbers_ = np.unique(data.train.labels, return_inverse=True)
    try:
        parts = divide(numbers_, tuple(map(str, names)), ("val",), seed)
    except InputError:
        return data
    judging = data.train.take(parts["val"])
    return replace(data, train=data.train.take(parts["train"]), val=judging, test=judging)


def of_one_input(data: Dataset) -> Dataset:
    """The data for a network whose input, where it is one, has no name."""
    inputs = data.train.images
    if not isinstance(inputs, NamedInputs) or len(inputs.arrays) > 1:
        return data
    alone = inputs_dataset(next(iter(inputs.arrays.values())), data.train.labels)
    return replace(alone, facts=data.facts)


def fitted_inputs(data: Dataset, artifact: Artifact) -> Dataset:
    """The data as the network of an artifact reads them; without labels where these are not its classes.

    Raises:
        InputError: other channels, another shape, or labels that are no class of the network.
    """
    if isinstance(data.preprocessing, NetworkInputs):
        return data if not data.train.labels.size else _fitting(data, artifact)
    shape = artifact.source.input_shape
    if len(shape) != 3:
        raise InputError(
            f"{artifact.network.label} expects inputs {shape}, but images are (C, H, W): pass "
            f"arrays in its input format"
        )
    channels = data.preprocessing.channels
    if channels != artifact.preprocessing.channels or channels not in (shape[0], shape[2]):
        raise InputError(
            f"{artifact.network.label} reads {shape[0]} channels, the images of {data.name} have {channels}"
        )
    last = isinstance(artifact.preprocessing, PictureInputs) and artifact.preprocessing.channels_last
    resized = data.resized(*(shape[:2] if last else shape[1:]))
    resized = in_order_of(artifact.preprocessing.class_names, resized, artifact.network.label)
    record = replace(artifact.preprocessing, class_names=resized.preprocessing.class_names)
    return _fitting(replace(resized, preprocessing=record), artifact)


def _fitting(data: Dataset, artifact: Artifact) -> Dataset:
    if not data.train.is_labeled:
        return data
    return with_fitting_labels(data, _classes(artifact), artifact.network.label)


def with_fitting_labels(data: Dataset, classes: int | None, name: str) -> Dataset:
    """The data with labels that are numbers of the outputs of a network of so many classes, called ``name``, or with
    none.

    Raises:
        InputError: labels that are no class of the network.
    """
    if not data.train.is_labeled:
        return data
    known = data.preprocessing.class_names
    if classes is None:
        return _without_labels(data, f"{name} has no output of one number for each class")
    if known and len(known) == classes:
        return data
    if known and not all(each.isdecimal() for each in known):
        return _without_labels(data, f"{name} has {classes} classes, {data.name} has {len(known)}")
    if known:
        numbers_of = np.array([int(each) for each in known], np.int64)
        data = _with_labels(data, lambda labels: numbers_of[labels])
    met = np.unique(np.concatenate([data.train.labels, data.val.labels, data.test.labels]))
    if not known and len(met) == classes:  # numbers of the classes from another one on
        return _with_labels(data, lambda labels: np.searchsorted(met, labels))
    if met[-1] >= classes or met[0] < 0:
        raise InputError(
            f"{name} has {classes} classes, {data.name} has labels up to {met[-1]}; images "
            "without labels can be used instead"
        )
    return data


def _without_labels(data: Dataset, why: str) -> Dataset:
    log.warning("evaluating without labels: %s", why)
    bare = _with_labels(data, lambda labels: NO_LABELS)
    return replace(bare, preprocessing=replace(data.preprocessing, class_names=()))


def _with_labels(data: Dataset, change: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Dataset:
    changed = {id(split): replace(split, labels=change(split.labels)) for split in data.distinct_splits}
    train, val, test = (changed[id(split)] for split in (data.train, data.val, data.test))
    return replace(data, train=train, val=val, test=test)


def _classes(artifact: Artifact) -> int | None:
    """How many classes the network tells apart; None where its output is something else, or nothing says what it is."""
    try:
        workload = artifact.workload()
    except InputError:  # of sides that are open, or of operations that are not known
        return None
    output = workload.shapes[workload.output]
    return output[1] if len(output) == 2 else None
