"""A source of labeled images before any of them is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compress.data.decoding import ImageReader, usual_shape
from compress.data.pixel_depth import FULL_DEPTH, held_bits
from compress.data.sources.left_out import LeftOut


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabeledImages:
    """Images with a label each, int64 (N,), and where it is known the number of each one's group."""

    reader: ImageReader
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageSource:
    """``parts``: ``"train"`` and, where they are given, ``"val"`` and ``"test"``; ``size``: (height, width) that the
    images get unless another is wished; ``bits``: how many of the 16 bits of deep images are used.
    """

    parts: Mapping[str, LabeledImages]
    class_names: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    bits: int = FULL_DEPTH
    left_out: LeftOut = field(default_factory=LeftOut)

    @classmethod
    def of(
        cls, parts: Mapping[str, LabeledImages], class_names: Sequence[str], left_out: LeftOut | None = None
    ) -> ImageSource:
        """Channels and size as the training images have them."""
        channels, size = usual_shape(parts["train"].reader)
        return cls(
            parts=parts,
            class_names=tuple(class_names),
            channels=channels,
            size=size,
            bits=held_bits([part.reader for part in parts.values()]),
            left_out=left_out or LeftOut(),
        )
