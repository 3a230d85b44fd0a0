"""Concatenates the batches of a loader that the user passes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.data.network_inputs import NamedInputs, as_inputs, as_numbers, to_numpy
from compress.data.sources.label_arrays import label_vector
from hw_profiles.errors import InputError

log = logging.getLogger("fitnas")

MOST_READ = 2048
"""Inputs that are taken of an iterable, which may have no end."""
_COLORS = 3
_LABELS = frozenset({"label", "labels", "target", "targets", "y"})


@dataclass(frozen=True, slots=True)
class Gathered:
    """Inputs (N, ...), bytes where they are images, and labels (N,) where each batch had some."""

    inputs: NDArray[Any] | NamedInputs
    labels: NDArray[Any] | None


def gathered(batches: Iterable[Any]) -> Gathered:
    """The first 2,048 inputs of an iterable of batches: arrays or tensors (N, ...), (inputs, labels), inputs by name;
    where the first sides of these differ, each is what one call reads.

    Raises:
        InputError: no batch, or batches of different forms.

    >>> found = gathered([(np.zeros((4, 3)), [0, 1, 2, 0]), (np.ones((2, 3)), [1, 1])])
    >>> found.inputs.shape, found.labels.tolist()
    ((6, 3), [0, 1, 2, 0, 1, 1])
    """
    parts: list[Gathered] = []
    count = 0
    for batch in batches:
        if count >= MOST_READ:
            log.warning("only the first %d inputs of the iterable are used; it yields more", count)
            break
        parts.append(_of_batch(batch))
        count += len(parts[-1].inputs)
    if not parts:
        raise InputError("the iterable of batches is empty")
    if any((part.labels is None) != (parts[0].labels is None) for part in parts):
        raise InputError("batches must all have labels or none, got both")
    labels = None if parts[0].labels is None else np.concatenate([part.labels for part in parts])
    return Gathered(_joined([part.inputs for part in parts]), labels)


def numbers(values: Any) -> NDArray[Any]:
    """An array of inputs: images in bytes as they are, other numbers as a network reads them.

    Raises:
        InputError: no numbers, or a single image (H, W, 3).
    """
    array = to_numpy(values)
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == _COLORS:
        raise InputError(
            f"images must be (N, H, W) or (N, H, W, 1 or 3), got a single one {array.shape}: stack them, as in "
            "np.stack(images)"
        )
    return array if is_pixels(array) else as_inputs(array)


def is_pixels(array: NDArray[Any]) -> bool:
    """Whether an array holds images: bytes (N, H, W) or (N, H, W, 1 or 3).

    >>> is_pixels(np.zeros((2, 8, 8), np.uint8)), is_pixels(np.zeros((2, 8, 8, 3), np.float32))
    (True, False)
    """
    return array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3)))


def named_inputs(arrays: Mapping[Any, Any]) -> NamedInputs:
    """Arrays (N, ...) by name, as a network reads them."""
    return NamedInputs({str(name): as_inputs(array) for name, array in arrays.items()})


def batch_or_call(arrays: Mapping[Any, Any]) -> NamedInputs:
    """Arrays by name: a batch of as many examples each, or else all that one call reads.

    >>> call = batch_or_call({"sound": np.zeros((1, 64)), "state": np.zeros((2, 1, 8)), "rate": 16000})
    >>> len(call), call.arrays["state"].shape
    (1, (1, 2, 1, 8))
    """
    found = {str(name): as_numbers(array) for name, array in arrays.items()}
    if len({array.shape[:1] for array in found.values()}) > 1 or any(not array.ndim for array in found.values()):
        return NamedInputs.of_calls([found])
    return NamedInputs(found)


def _of_batch(batch: Any) -> Gathered:
    labels = None
    if isinstance(batch, Mapping):
        batch, labels = _without_labels(batch)
    elif isinstance(batch, tuple | list) and len(batch) == 2 and _is_array(batch[0]):
        batch, labels = batch
    elif isinstance(batch, tuple | list) and len(batch) == 1 and _is_array(batch[0]):
        batch = batch[0]
    if isinstance(batch, tuple) and len(batch) != 1 and _is_array(batch[0]):
        raise InputError(
            f"a batch must be inputs (N, ...), (inputs, labels) or inputs by name, got a tuple of {len(batch)}"
        )
    if isinstance(batch, Image.Image):
        raise InputError(
            "an iterable must yield batches (N, ...), got a single image: pass a folder or a stacked array"
        )
    inputs = batch_or_call(batch) if isinstance(batch, Mapping) else numbers(batch)
    return Gathered(inputs, None if labels is None else label_vector(to_numpy(labels), len(inputs)))


def _without_labels(batch: Mapping[Any, Any]) -> tuple[Any, Any]:
    """The inputs of a batch by name, alone where there is one, and its labels."""
    labels = [name for name in batch if str(name).casefold() in _LABELS]
    inputs = {name: value for name, value in batch.items() if name not in labels}
    found = next(iter(inputs.values())) if len(inputs) == 1 and labels else inputs
    return found, batch[labels[0]] if labels else None


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and len(value.shape) >= 1


def _joined(parts: list[NDArray[Any] | NamedInputs]) -> NDArray[Any] | NamedInputs:
    shapes = {_form(part) for part in parts}
    if len(shapes) > 1:
        raise InputError(f"batches must be of one form, got {' and '.join(map(str, sorted(shapes, key=str)[:2]))}")
    if isinstance(parts[0], NamedInputs):
        arrays = [part.arrays for part in parts if isinstance(part, NamedInputs)]
        joined = {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}
        return NamedInputs(joined, parts[0].whole_calls)
    return np.concatenate([part for part in parts if not isinstance(part, NamedInputs)])


def _form(part: NDArray[Any] | NamedInputs) -> tuple[Any, ...]:
    if isinstance(part, NamedInputs):
        return (part.whole_calls, *((name, array.shape[1:]) for name, array in part.arrays.items()))
    return (part.dtype.kind, *part.shape[1:])
