"""A source of labelled images before any of them is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.data.decoding import ImageReader, usual_shape


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledImages:
    """Images with a label each, int64 (N,), and where it is known the number of each one's group."""

    reader: ImageReader
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageSource:
    """``parts``: ``"train"`` and, where they are given, ``"val"`` and ``"test"``; ``size``: (height, width) that the
    images get unless another is wished.
    """

    parts: Mapping[str, LabelledImages]
    class_names: tuple[str, ...]
    channels: int
    size: tuple[int, int]

    @classmethod
    def of(cls, parts: Mapping[str, LabelledImages], class_names: Sequence[str]) -> ImageSource:
        """Channels and size as the training images have them."""
        channels, size = usual_shape(parts["train"].reader)
        return cls(parts=parts, class_names=tuple(class_names), channels=channels, size=size)
