"""The batches of a training: drawn, augmented and normalised by (seed, step) alone."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.data.dataset import Split
from compress.data.preprocessing import Preprocessing

_LARGEST_SHIFT = 1 / 8


class Batches:
    """Augmented batches by step number; all of one size, which is that of the split where that is smaller."""

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

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels (N, C, H, W) in 0..1 and labels (N,)."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.labels), generator=generator)
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        generator = torch.Generator().manual_seed((self.seed + 1) * 1_000_003 + step)
        # By batches: the images may be a map of a file that is larger than the memory.
        images = torch.from_numpy(self.images[chosen.numpy()]).permute(0, 3, 1, 2)
        pixels = augment(images, generator, flip=self.flip).to(self.place).float().div_(255)
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
    rows = _shifted(height, count, generator)
    columns = _shifted(width, count, generator)
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    # Image by image in numpy: whole rows, then whole pixels of these, are copied several times faster than single
    # numbers by an index of every one.
    given = images.permute(0, 2, 3, 1).numpy()
    found = torch.empty((count, height, width, images.shape[1]), dtype=images.dtype)
    for image, its_rows, its_columns, place in zip(given, rows.numpy(), columns.numpy(), found.numpy(), strict=True):
        image.take(its_rows, 0).take(its_columns, 1, out=place, mode="clip")  # the default mode copies ``out``
    return found.permute(0, 3, 1, 2)


def _shifted(size: int, count: int, generator: torch.Generator) -> Tensor:
    reach = int(size * _LARGEST_SHIFT)
    offsets = torch.randint(-reach, reach + 1, (count, 1), generator=generator)
    return (torch.arange(size)[None] + offsets).clamp(0, size - 1)
