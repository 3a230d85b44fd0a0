"""From an image to the network's input: one record for training, ONNX Runtime and generated code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SCHEMA = 1
METADATA_KEY = "fitnas.preprocessing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """Cut the centre to the aspect ratio, resize with a bilinear filter through each of ``sizes`` (height, width),
    divide by 255, subtract ``mean``, divide by ``std`` per channel; float32, (N, C, H, W).

    >>> p = Preprocessing(channels=1, sizes=((8, 8),), mean=(0.5,), std=(0.25,), class_names=("a", "b"))
    >>> p.tensor(np.full((1, 8, 8, 1), 255, np.uint8)).max().item()
    2.0
    """

    channels: int
    sizes: tuple[tuple[int, int], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"Preprocessing: 1 or 3 channels with a mean and std each, got {self.channels}")
        if not self.sizes or min(min(size) for size in self.sizes) < 1:
            raise ValueError(f"Preprocessing.sizes must be pairs of at least 1, got {self.sizes}")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the network reads."""
        return (self.channels, *self.sizes[-1])

    def image(self, image: Image.Image) -> NDArray[np.uint8]:
        """The pixels (height, width, channels) of an opened image after cutting and resizing."""
        image = image.convert("L" if self.channels == 1 else "RGB")
        for height, width in self.sizes:
            if image.size != (width, height):
                image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        pixels: NDArray[np.uint8] = np.asarray(image, np.uint8).reshape(*self.sizes[-1], self.channels)
        return pixels

    def tensor(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, C) pixels of the final size -> (N, C, H, W) network input."""
        x = pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        shape = (1, self.channels, 1, 1)
        mean, std = (np.array(values, np.float32).reshape(shape) for values in (self.mean, self.std))
        normalised: NDArray[np.float32] = np.ascontiguousarray((x - mean) / std)
        return normalised

    def to_json(self) -> str:
        """The inverse of :meth:`from_json`."""
        return json.dumps({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Parse what :meth:`to_json` wrote; a ValueError says what is wrong."""
        try:
            data: Mapping[str, Any] = json.loads(text)
            if data["schema"] != SCHEMA:
                raise ValueError(f"schema must be {SCHEMA}, got {data['schema']!r}")
            return cls(
                channels=int(data["channels"]),
                sizes=tuple((int(h), int(w)) for h, w in data["sizes"]),
                mean=tuple(map(float, data["mean"])),
                std=tuple(map(float, data["std"])),
                class_names=tuple(map(str, data["class_names"])),
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"not a preprocessing record ({error!r})") from None
