"""A dataset from two arrays: images and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset import Dataset, Split
from compress.data.network_inputs import to_numpy
from compress.data.preprocessing import Preprocessing
from compress.data.sources.label_arrays import label_vector
from compress.data.splits import divide
from hw_profiles.errors import InputError

_FEWEST_CLASSES = 2


def arrays_dataset(images: Any, labels: Any, *, seed: int = 0) -> Dataset:
    """Images as bytes (N, H, W) or (N, H, W, 1 or 3), or as floats (N, 1 or 3, H, W) as the network reads them; labels
    integers or text, (N,), (N, 1) or one-hot. Test and validation images are split off by the seed.

    Bytes get the mean and deviation of their channels as their preprocessing. Floats are held as bytes between the
    least and the largest number of each channel, which is exact where they were made of bytes that reach both ends.

    Raises:
        InputError: other types or shapes, numbers that are not finite, or fewer than two classes.

    >>> x = np.linspace(-1, 1, 12 * 16, dtype=np.float32).reshape(12, 1, 4, 4)
    >>> data = arrays_dataset(x, np.arange(12) % 2)
    >>> float(abs(data.preprocessing.tensor(data.test.images)).max() <= 1.001)
    1.0
    """
    x = to_numpy(images)
    y = label_vector(to_numpy(labels), len(x) if x.ndim else 0)
    pixels, mean, std = _bytes(x) if x.dtype == np.uint8 else _floats(x)
    names, numbers = np.unique(y, return_inverse=True)
    if len(names) < _FEWEST_CLASSES:
        raise InputError(f"labels must be of at least {_FEWEST_CLASSES} classes, got {len(names)}")
    known = tuple(map(str, names))
    parts = {
        name: Split(pixels[chosen], numbers[chosen].astype(np.int64))
        for name, chosen in divide(numbers, known, ("test", "val"), seed).items()
    }
    record = Preprocessing(channels=pixels.shape[3], sizes=(pixels.shape[1:3],), mean=mean, std=std, class_names=known)
    return Dataset(
        name="the given images", train=parts["train"], val=parts["val"], test=parts["test"], preprocessing=record
    )


_Pixels = tuple[NDArray[np.uint8], tuple[float, ...], tuple[float, ...]]


def _bytes(x: NDArray[Any]) -> _Pixels:
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[3] not in (1, 3) or not x.size:
        raise InputError(f"uint8 images must have shape (N, H, W) or (N, H, W, 1 or 3), got {x.shape}")
    shares = x.reshape(-1, x.shape[3]) / np.float32(255)
    return x, tuple(map(float, shares.mean(0))), tuple(float(max(s, 1e-3)) for s in shares.std(0))


def _floats(x: NDArray[Any]) -> _Pixels:
    if not np.issubdtype(x.dtype, np.floating) or x.ndim != 4 or x.shape[1] not in (1, 3) or not x.size:
        raise InputError(
            f"images must be uint8 (N, H, W, channels) or floats (N, 1 or 3, H, W), got {x.dtype} {x.shape}"
        )
    if not np.isfinite(x).all():
        raise InputError("images must be finite numbers, got NaN or infinity")
    low = x.min(axis=(0, 2, 3), keepdims=True).astype(np.float64)
    span = np.maximum(x.max(axis=(0, 2, 3), keepdims=True) - low, 1e-6)
    pixels = np.rint((x - low) / span * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    mean, std = (-low / span).ravel(), (1 / span).ravel()
    return np.ascontiguousarray(pixels), tuple(map(float, mean)), tuple(map(float, std))
