"""Labelled images before any of them is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.data.decoding import ImageReader, usual_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Images with a label each, int64 (N,), and where it is known the number of each one's group."""

    reader: ImageReader
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """``parts``: ``"train"`` and, where they are given, ``"val"`` and ``"test"``; ``size``: (height, width) that the
    images get unless another is wished.
    """

    parts: Mapping[str, Part]
    class_names: tuple[str, ...]
    channels: int
    size: tuple[int, int]

    @classmethod
    def of(cls, parts: Mapping[str, Part], class_names: Sequence[str]) -> Source:
        """Channels and size as the training images have them."""
        channels, size = usual_shape(parts["train"].reader)
        return cls(parts=parts, class_names=tuple(class_names), channels=channels, size=size)
