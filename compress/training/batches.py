"""The batches of a training: drawn, augmented and normalised by (seed, step) alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compress.data.dataset import Split
from compress.data.preprocessing import Preprocessing

_LARGEST_SHIFT = 1 / 8


class Batches:
    """Augmented batches by step number; all of one size, which is that of the split where that is smaller.

    With ``views`` each image is augmented in so many ways only, one after the other, again and again.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        seed: int,
        flip: bool,
        layout: torch.memory_format,
        place: torch.device,
        views: int | None = None,
    ) -> None:
        self.images = split.images
        self.labels = torch.from_numpy(split.labels)
        self.batch_size = min(batch_size, len(split))
        self.per_epoch = len(split) // self.batch_size
        self.seed = seed
        self.flip = flip
        self.layout = layout
        self.place = place
        # A number for each pixel: with one for each channel the innermost loop would be as short as a pixel.
        shape = (1, preprocessing.channels, *split.images.shape[1:3])
        self.mean, self.std = (
            torch.tensor(values).view(1, -1, 1, 1).expand(shape).contiguous(memory_format=layout).to(place)
            for values in (preprocessing.mean, preprocessing.std)
        )
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)
        self._views = None if views is None else self._moves_of_views(views)

    def _moves_of_views(self, views: int) -> list[Moves]:
        generator = torch.Generator().manual_seed((self.seed + 1) * 1_000_003 - 1)
        return [Moves.drawn(self.images.shape[:3], generator, flip=self.flip) for _ in range(views)]

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels (N, C, H, W) in 0..1 and labels (N,)."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.labels), generator=generator)
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        # By batches: the images may be a map of a file that is larger than the memory.
        images = torch.from_numpy(self.images[chosen.numpy()]).permute(0, 3, 1, 2)
        if self._views is None:
            generator = torch.Generator().manual_seed((self.seed + 1) * 1_000_003 + step)
            moved = augment(images, generator, flip=self.flip)
        else:
            moved = self._views[epoch % len(self._views)].of(chosen).applied(images)
        pixels = moved.to(self.place).float().div_(255)
        return pixels.contiguous(memory_format=self.layout), self.labels[chosen].to(self.place)

    def normalised(self, pixels: Tensor) -> Tensor:
        """What the network reads of such pixels."""
        return (pixels - self.mean).div_(self.std)


def augment(images: Tensor, generator: torch.Generator, *, flip: bool) -> Tensor:
    """Shift each image by up to an eighth of its size, edges repeated, and mirror half of them where ``flip`` is set.

    >>> augment(torch.zeros(2, 1, 8, 8), torch.Generator(), flip=True).shape
    torch.Size([2, 1, 8, 8])
    """
    count, _, height, width = images.shape
    return Moves.drawn((count, height, width), generator, flip=flip).applied(images)


@dataclass(frozen=True, slots=True)
class Moves:
    """How images are augmented: by how many pixels each (N,) is shifted down and right, and whether it is mirrored."""

    down: Tensor
    right: Tensor
    mirrored: Tensor | None

    @classmethod
    def drawn(cls, shape: tuple[int, ...], generator: torch.Generator, *, flip: bool) -> Moves:
        """For a number of images of a height and a width."""
        count, height, width = shape
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


def _offsets(size: int, count: int, generator: torch.Generator) -> Tensor:
    reach = int(size * _LARGEST_SHIFT)
    return torch.randint(-reach, reach + 1, (count, 1), generator=generator)


def _places(size: int, offsets: Tensor) -> Tensor:
    return (torch.arange(size)[None] + offsets).clamp(0, size - 1)
