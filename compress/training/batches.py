"""The batches of a training: drawn, augmented and normalized by (seed, step) alone."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.data.dataset import Split
from compress.data.preprocessing import Preprocessing
from compress.training.augmentation import LIGHT, Changes, drawn
from compress.training.data_parallel import part_of_batch


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
        augmentation: str = LIGHT,
    ) -> None:
        self.images = split.images
        self.labels = torch.from_numpy(split.labels)
        self.batch_size = min(batch_size, len(split))
        self.per_epoch = len(split) // self.batch_size
        self.seed = seed
        self.flip = flip
        self.augmentation = augmentation
        self.layout = layout
        self.place = place
        # A number for each pixel: with one for each channel the innermost loop would be as short as a pixel.
        shape = (1, preprocessing.channels, *split.images.shape[1:3])
        self.mean, self.std = (
            torch.tensor(values).view(1, -1, 1, 1).expand(shape).contiguous(memory_format=layout).to(place)
            for values in (preprocessing.mean, preprocessing.std)
        )
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)
        self._views = None if views is None else self._changes_of_views(views)

    def _changes_of_views(self, views: int) -> list[Changes]:
        generator = torch.Generator().manual_seed((self.seed + 1) * 1_000_003 - 1)
        return [self._drawn(len(self.labels), generator) for _ in range(views)]

    def _drawn(self, count: int, generator: torch.Generator) -> Changes:
        _, height, width, channels = self.images.shape
        return drawn(self.augmentation, (count, channels, height, width), generator, flip=self.flip)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels (N, C, H, W) in 0..1 and labels (N,): those of this process, where several train together."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.labels), generator=generator)
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        mine = torch.arange(len(chosen))[part_of_batch(len(chosen))]
        if self._views is None:
            generator = torch.Generator().manual_seed((self.seed + 1) * 1_000_003 + step)
            changes = self._drawn(len(chosen), generator).of(mine)
        else:
            changes = self._views[epoch % len(self._views)].of(chosen[mine])
        chosen = chosen[mine]
        # By batches: the images may be a map of a file that is larger than the memory.
        images = torch.from_numpy(self.images[chosen.numpy()]).permute(0, 3, 1, 2)
        pixels = changes.applied(images).to(self.place).float().div_(255)
        return pixels.contiguous(memory_format=self.layout), self.labels[chosen].to(self.place)

    def normalized(self, pixels: Tensor) -> Tensor:
        """What the network reads of such pixels."""
        return (pixels - self.mean).div_(self.std)
