"""Raw network inputs: arrays that are not images and need no normalization."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from compress.data.preprocessing import Preprocessing
from compress.data.unknown_preprocessing import UnknownPreprocessing
from hw_profiles.errors import InputError
from hw_profiles.network.graph import Value
from hw_profiles.network.workload import InputShape
from hw_profiles.onnx_io.session import as_type


@dataclass(frozen=True, slots=True, eq=False)
class NamedInputs:
    """The inputs of a network that has several: an array (N, ...) for each name. It is indexed along N.

    With ``whole_calls`` each of N is all that one call reads, for networks that read more than batches: a state whose
    first axis is another, a single number.

    >>> inputs = NamedInputs({"a": np.zeros((5, 2)), "b": np.zeros((5, 3, 4))})
    >>> len(inputs), inputs[1:3].arrays["b"].shape
    (5, (2, 3, 4))
    """

    arrays: Mapping[str, NDArray[Any]]
    whole_calls: bool = False

    def __post_init__(self) -> None:
        counts = {name: array.shape[:1] for name, array in self.arrays.items()}
        if not counts or len(set(counts.values())) != 1 or () in counts.values():
            shapes = ", ".join(f"{name} {array.shape}" for name, array in self.arrays.items()) or "none"
            raise InputError(
                f"named inputs must be arrays (N, ...) with the same N, got {shapes}; for inputs without a batch "
                "dimension pass a list of dictionaries, one per call"
            )

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, rows: Any) -> NamedInputs:
        return NamedInputs({name: array[rows] for name, array in self.arrays.items()}, self.whole_calls)

    @classmethod
    def of_calls(cls, calls: Sequence[Mapping[str, NDArray[Any]]]) -> NamedInputs:
        """What each of several calls reads, of the same names and shapes.

        >>> calls = NamedInputs.of_calls([{"state": np.zeros((2, 1, 8)), "rate": np.asarray(16)}] * 3)
        >>> len(calls), calls.sides
        (3, {'state': (1, 8), 'rate': ()})
        """
        forms = {tuple((name, array.shape) for name, array in call.items()) for call in calls}
        if len(forms) > 1:
            raise InputError(f"all calls must read inputs of the same shapes, got {' and '.join(map(str, forms))}")
        return cls({name: np.stack([call[name] for call in calls]) for name in calls[0]}, whole_calls=True)

    @property
    def sides(self) -> dict[str, tuple[int, ...]]:
        """Of each input in one call, without its first axis."""
        first = 2 if self.whole_calls else 1
        return {name: array.shape[first:] for name, array in self.arrays.items()}

    def filled(self, size: int) -> NamedInputs:
        """As many as whole batches of ``size`` take, those from the first on twice; calls as they are.

        >>> NamedInputs({"a": np.arange(3)}).filled(5).arrays["a"].tolist()
        [0, 1, 2, 0, 1]
        """
        if self.whole_calls or not size or len(self) % size == 0:
            return self
        return self[np.arange(-(-len(self) // size) * size) % len(self)]

    def feeds(self, size: int) -> Iterator[dict[str, NDArray[Any]]]:
        """What each call reads: ``size`` of N, the last one the rest; or a whole call."""
        if self.whole_calls:
            yield from ({name: np.asarray(array[i]) for name, array in self.arrays.items()} for i in range(len(self)))
            return
        for start in range(0, len(self), size):
            yield {name: array[start : start + size] for name, array in self.arrays.items()}


Inputs = NDArray[Any] | NamedInputs
"""What a network reads: an array (N, ...) of one input, or arrays of several by name."""


def sides_of(inputs: Inputs) -> InputShape:
    """What is given, without the axis of examples.

    >>> sides_of(np.zeros((5, 3, 8, 8)))
    (3, 8, 8)
    """
    return inputs.sides if isinstance(inputs, NamedInputs) else tuple(inputs.shape[1:])


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkInputs(UnknownPreprocessing):
    """In the place of a record for inputs that are given as the network reads them; ``shape`` without N, by name
    where there are several.

    ``stands_for`` is the record that the network has otherwise, for images.
    """

    shape: InputShape
    stands_for: Preprocessing = field(default_factory=UnknownPreprocessing)

    @property
    def input_shape(self) -> InputShape:  # type: ignore[override]
        """What one input is, without N."""
        return self.shape

    def tensor(self, pixels: Any) -> Any:
        """The inputs themselves."""
        return pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureInputs(NetworkInputs):
    """In the place of a record for a network that reads images otherwise than as floats (N, C, H, W): with the channels
    last, as TensorFlow has them, or in bytes, which it normalizes itself. ``pictures`` says how floats are normalized.
    """

    pictures: Preprocessing
    channels_last: bool
    in_bytes: bool

    def tensor(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """(N, H, W, C) pixels of the final size -> network input."""
        if not self.in_bytes:
            floats = self.pictures.tensor(pixels)
            return np.ascontiguousarray(floats.transpose(0, 2, 3, 1)) if self.channels_last else floats
        return pixels if self.channels_last else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def picture_record(record: Preprocessing, shape: tuple[int, ...], *, in_bytes: bool) -> Preprocessing | None:
    """How a network that reads ``shape`` is given the images of a record: the record itself, for their size, where that
    is (C, H, W) in floats; None where it reads no such images.

    >>> from compress.data.pictures import pixels_dataset
    >>> record = pixels_dataset(np.zeros((4, 8, 8, 3), np.uint8)).preprocessing
    >>> picture_record(record, (16, 16, 3), in_bytes=True).tensor(np.zeros((2, 16, 16, 3), np.uint8)).shape
    (2, 16, 16, 3)
    """
    if len(shape) != 3 or record.channels not in (shape[0], shape[2]):
        return None
    last = shape[0] != record.channels
    sides = (shape[0], shape[1]) if last else (shape[1], shape[2])
    if sides != record.sizes[-1]:
        record = replace(record, sizes=(*record.sizes, sides))
    if not (last or in_bytes):
        return record
    return PictureInputs(
        channels=record.channels, sizes=record.sizes, mean=record.mean, std=record.std, bits=record.bits,
        class_names=record.class_names, shape=shape, pictures=record, channels_last=last, in_bytes=in_bytes,
    )  # fmt: skip


def check_images(images: NDArray[Any], shape: Sequence[int | str | None]) -> None:
    """Refuse images that calibration cannot use; ``shape`` (C, H, W) is what the network reads, names where it is open.

    Raises:
        InputError: no images, another shape, or numbers that are not finite.

    >>> check_images(np.zeros((4, 3, 8, 8), np.float32), (3, 32, 32))
    Traceback (most recent call last):
    hw_profiles.errors.InputError: calibration images must have the shape (N, 3, 32, 32), got (4, 3, 8, 8)
    """
    fits = images.ndim == len(shape) + 1 and all(
        not isinstance(side, int) or side == got for side, got in zip(shape, images.shape[1:], strict=True)
    )
    if not fits or not len(images):
        wanted = ", ".join(map(str, ("N", *shape)))
        raise InputError(f"calibration images must have the shape ({wanted}), got {images.shape}")
    if not np.isfinite(images).all():
        count = int(np.sum(~np.isfinite(images).reshape(len(images), -1).all(axis=1)))
        raise InputError(f"calibration images must be finite, got NaN or infinity in {count} of {len(images)}")


def checked_inputs(inputs: Sequence[Value], images: Inputs) -> NamedInputs:
    """What is given for each of a network's ``inputs``, in its type.

    Raises:
        InputError: no images, other names, another shape, or numbers that are not finite.

    >>> checked_inputs([Value("x", ("N", 2))], np.zeros((4, 2), np.float32)).arrays["x"].shape
    (4, 2)
    """
    names = ", ".join(each.name for each in inputs)
    if not isinstance(images, NamedInputs):
        if len(inputs) > 1:
            raise InputError(f"the network has the inputs {names}: arrays for all must be given by name")
        images = NamedInputs({inputs[0].name: images})
    if set(images.arrays) != {each.name for each in inputs}:
        raise InputError(f"inputs must be given for {names}, got {', '.join(images.arrays)}")
    arrays = {}
    for each in inputs:
        array = images.arrays[each.name]
        check_images(array, each.shape if images.whole_calls else each.shape[1:])
        arrays[each.name] = as_type(each.name, array, np.dtype(helper.tensor_dtype_to_np_dtype(each.data_type)))
    return NamedInputs(arrays, images.whole_calls)


def as_inputs(values: Any) -> NDArray[Any]:
    """An array as a network reads it: floats as float32, integers and truth values as they are.

    Raises:
        InputError: no numbers, none at all, or some that are not finite.

    >>> as_inputs([[0.5, 1.0]]).dtype
    dtype('float32')
    """
    array = to_numpy(values)
    if array.ndim < 1:
        raise InputError(f"inputs must be numbers (N, ...), got {array.dtype} {array.shape}")
    return as_numbers(array)


def as_numbers(values: Any) -> NDArray[Any]:
    """The same of any rank, for what a whole call reads.

    >>> as_numbers(16000).shape
    ()
    """
    array = to_numpy(values)
    if array.dtype.kind not in "fiub" or not array.size:
        raise InputError(f"inputs must be numbers (N, ...), got {array.dtype} {array.shape}")
    if array.dtype.kind == "f":
        array = np.asarray(array, np.float32)
        if not np.isfinite(array).all():
            rows = np.atleast_1d(~np.isfinite(array))
            count = int(rows.reshape(len(rows), -1).any(axis=1).sum())
            raise InputError(f"inputs must be finite numbers, got NaN or infinity in {count} of {len(rows)}")
    return array


def to_numpy(values: Any) -> NDArray[Any]:
    """A tensor of torch, also of another device or in bfloat16, or anything else that numpy takes, as an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        return np.asarray(values.numpy())
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"inputs must be an array of numbers ({' '.join(str(error).split())[:200]})") from None
