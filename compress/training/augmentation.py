"""How the images of a training are changed at random, so that each is seen in many forms."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

LIGHT, STRONG = "light", "strong"
AUGMENTATIONS = (LIGHT, STRONG)

_LARGEST_SHIFT = 1 / 8  # of a side
_LARGEST_ANGLE = math.radians(15)
_LARGEST_SCALE = 1.2
_LARGEST_GAIN = 1.2  # of brightness and of contrast; half of its logarithm for each color


class Changes(Protocol):
    """What was drawn for each of some images."""

    def of(self, chosen: Tensor) -> Self:
        """That of the images of these indices."""

    def applied(self, images: Tensor) -> Tensor:
        """The images (N, C, H, W) in 0..255, changed."""


def drawn(augmentation: str, shape: tuple[int, ...], generator: torch.Generator, *, flip: bool) -> Changes:
    """Draw the changes of images (N, C, H, W) with values in 0..255, each by itself.

    ``"light"`` shifts an image by up to an eighth of its size, edges repeated; ``"strong"`` also rotates it by up to 15
    degrees, scales it by up to 1.2, and changes brightness, contrast and colors by up to a fifth. Half of the images
    are mirrored if ``flip`` is set.

    >>> images = torch.zeros(2, 1, 8, 8)
    >>> drawn("strong", (2, 1, 8, 8), torch.Generator(), flip=True).applied(images).shape
    torch.Size([2, 1, 8, 8])
    """
    kind = Moves if augmentation == LIGHT else Warps
    return kind.drawn(shape, generator, flip=flip)


@dataclass(frozen=True, slots=True)
class Moves:
    """By how many pixels images are shifted down and right, (N, 1) each, and which (N,) are mirrored."""

    down: Tensor
    right: Tensor
    mirrored: Tensor | None

    @classmethod
    def drawn(cls, shape: tuple[int, ...], generator: torch.Generator, *, flip: bool) -> Moves:
        """For images of a shape (N, C, H, W)."""
        count, _, height, width = shape
        down, right = (_offsets(size, count, generator) for size in (height, width))
        return cls(down, right, torch.rand(count, generator=generator) < 0.5 if flip else None)

    def of(self, chosen: Tensor) -> Moves:
        """Those of some of the images."""
        return Moves(self.down[chosen], self.right[chosen], None if self.mirrored is None else self.mirrored[chosen])

    def applied(self, images: Tensor) -> Tensor:
        """The images (N, C, H, W), moved."""
        count, channels, height, width = images.shape
        rows, columns = _places(height, self.down), _places(width, self.right)
        if self.mirrored is not None:
            columns = torch.where(self.mirrored[:, None], columns.flip(1), columns)
        # Image by image in numpy: whole rows, then whole pixels of these, are copied several times faster than single
        # numbers by an index of every one.
        given = images.permute(0, 2, 3, 1).numpy()
        found = torch.empty((count, height, width, channels), dtype=images.dtype)
        for image, its_rows, its_columns, place in zip(
            given, rows.numpy(), columns.numpy(), found.numpy(), strict=True
        ):
            image.take(its_rows, 0).take(its_columns, 1, out=place, mode="clip")  # the default mode copies ``out``
        return found.permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class Warps:
    """The affine maps (N, 2, 3) from places in the changed image to those in the given one, in -1..1, the factors of
    contrast (N, 1, 1, 1), and those of each channel (N, C, 1, 1)."""

    maps: Tensor
    contrast: Tensor
    gains: Tensor

    @classmethod
    def drawn(cls, shape: tuple[int, ...], generator: torch.Generator, *, flip: bool) -> Warps:
        """For images of a shape (N, C, H, W)."""
        count, channels, height, width = shape

        def uniform(largest: float, *sides: int) -> Tensor:
            return (torch.rand((count, *sides), generator=generator) * 2 - 1) * largest

        scale, angle = uniform(math.log(_LARGEST_SCALE)).exp(), uniform(_LARGEST_ANGLE)
        across, along = scale * angle.cos(), scale * angle.sin()
        shifts = uniform(2 * _LARGEST_SHIFT, 2)
        sign = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0) if flip else torch.ones(count)
        # Places go from -1 to 1 on both sides, so a turn of an image that is no square stretches one of its sides.
        first = torch.stack([sign * across, -along * height / width, shifts[:, 0]], 1)
        second = torch.stack([sign * along * width / height, across, shifts[:, 1]], 1)
        largest = math.log(_LARGEST_GAIN)
        colors = uniform(largest / 2, channels) if channels > 1 else torch.zeros(count, 1)
        gains = (uniform(largest, 1) + colors).exp()
        return cls(torch.stack([first, second], 1), uniform(largest, 1, 1, 1).exp(), gains[..., None, None])

    def of(self, chosen: Tensor) -> Warps:
        """Those of some of the images."""
        return Warps(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def applied(self, images: Tensor) -> Tensor:
        """The images (N, C, H, W) in 0..255, as float32."""
        places = F.affine_grid(self.maps, list(images.shape), align_corners=False)
        found = F.grid_sample(images.float(), places, padding_mode="reflection", align_corners=False)
        mean = found.mean((1, 2, 3), keepdim=True)
        return ((found - mean) * self.contrast + mean).mul_(self.gains).clamp_(0, 255)


def _offsets(size: int, count: int, generator: torch.Generator) -> Tensor:
    reach = int(size * _LARGEST_SHIFT)
    return torch.randint(-reach, reach + 1, (count, 1), generator=generator)


def _places(size: int, offsets: Tensor) -> Tensor:
    return (torch.arange(size)[None] + offsets).clamp(0, size - 1)
