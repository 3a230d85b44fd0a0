"""How to train, and what a training took."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional as F

from compress.argument_checks import is_number, is_whole, is_within
from compress.training.augmentation import AUGMENTATIONS, LIGHT, STRONG
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import check_one_of

# loss(logits, labels, pixels): pixels are the augmented images, (N, C, H, W) in 0..1, as a teacher wants them.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
# before_step(share): share of the training that is over, in [0, 1).
BeforeStep = Callable[[float], None]

FEW_IMAGES = 10_000
_BATCH, _BATCH_OF_FEW = 128, 32
_WARMUP_SHARE = 0.1
_EPOCHS_OF_STRONG = 60.0
_CHOICES: dict[str, tuple[object, ...]] = {
    "bfloat16": (True, False, None),
    "flip": (True, False, None),
    "channels_last": (True, False),
    "augmentation": AUGMENTATIONS,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Training settings: SGD with Nesterov momentum and a learning rate with warm-up and cosine decay.

    Training ends after ``epochs`` or after ``seconds``, whichever comes first; the learning rate follows the one that
    is further on, so it always ends at zero. ``bfloat16`` None measures which number format is faster on this machine.
    ``batch_size`` None is 128, or 32 for fewer than 10,000 images; ``learning_rate`` is for 128 and is scaled to the
    batch size. ``flip`` None flips color images only. ``channels_last`` is the memory format, usually faster; disabling
    it selects other kernels, a workaround for crashes. With ``views`` each image has that many augmented versions, used
    in turn, so that the outputs of a teacher can be cached. ``augmentation``
    (:func:`compress.training.augmentation.drawn`) is ``"light"``, or ``"strong"`` for few images that are seen some
    hundred times.
    """

    epochs: float = 30.0
    seconds: float | None = None
    batch_size: int | None = None
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    bfloat16: bool | None = False
    flip: bool | None = None
    channels_last: bool = True
    views: int | None = None
    augmentation: str = LIGHT

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "seconds"):
            value = getattr(self, name)
            if not is_number(value, 0) and not (name == "seconds" and value is None):
                raise InputError(f"Recipe.{name} must be above 0, got {value!r}")
        for name in ("batch_size", "views"):
            value = getattr(self, name)
            if value is not None and not is_whole(value, 1):
                raise InputError(f"Recipe.{name} must be at least 1, got {value!r}")
        for name, valid in _CHOICES.items():
            check_one_of(f"Recipe.{name}", getattr(self, name), valid)
        for name in ("weight_decay", "label_smoothing"):
            value = getattr(self, name)
            if not is_within(value, 0, 1) or value == 1:
                raise InputError(f"Recipe.{name} must be at least 0 and below 1, got {value!r}")

    @property
    def alternative(self) -> Recipe:
        """The same training by other kernels, contiguous and in float32, for where the usual ones crash."""
        return replace(self, bfloat16=False, channels_last=False)


@dataclass(frozen=True, slots=True)
class Training:
    """What a training took.

    ``threads`` is their mean over its time, ``rollbacks`` how often it diverged and went on from an earlier state,
    ``parts`` in how many a batch was divided because the memory did not suffice.
    """

    steps: int
    epochs: float
    seconds: float
    images_per_second: float
    bfloat16: bool
    threads: float = 0.0
    rollbacks: int = 0
    parts: int = 1

    def __add__(self, other: Training) -> Training:
        """Both, one after the other."""
        seconds = self.seconds + other.seconds
        images = self.images_per_second * self.seconds + other.images_per_second * other.seconds
        return Training(
            self.steps + other.steps,
            self.epochs + other.epochs,
            seconds,
            images / max(seconds, 1e-9),
            self.bfloat16 or other.bfloat16,
            (self.threads * self.seconds + other.threads * other.seconds) / max(seconds, 1e-9),
            self.rollbacks + other.rollbacks,
            max(self.parts, other.parts),
        )


def usual_batch_size(images: int) -> int:
    """Where a recipe does not say it.

    >>> usual_batch_size(50_000), usual_batch_size(500)
    (128, 32)
    """
    return _BATCH if images >= FEW_IMAGES else _BATCH_OF_FEW


def from_random_weights(recipe: Recipe, images: int, epochs: float = 0.0) -> Recipe:
    """The recipe for a network that begins with random weights and sees so many images in so many epochs.

    Of fewer than 10,000 images the batches are small, and the learning rate is not lowered for them; in 60 epochs or
    more they are augmented strongly. (On 160 photographs of ten classes, 120 epochs, that left 9 % of errors on others
    of 22 %; the rate alone 16 %.)

    >>> from_random_weights(Recipe(learning_rate=0.1), images=500, epochs=200).augmentation
    'strong'
    """
    if images >= FEW_IMAGES:
        return recipe
    batch = recipe.batch_size or usual_batch_size(images)
    augmentation = STRONG if epochs >= _EPOCHS_OF_STRONG else recipe.augmentation
    return replace(recipe, learning_rate=recipe.learning_rate * _BATCH / batch, augmentation=augmentation)


def label_loss(smoothing: float) -> Loss:
    """Cross-entropy with the labels."""

    def loss(logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    return loss


def schedule(share: float) -> float:
    """The part of the learning rate after this share of a training.

    >>> [round(schedule(share), 3) for share in (0.0, 0.1, 0.55, 1.0)]
    [0.01, 1.0, 0.5, 0.0]
    """
    if share < _WARMUP_SHARE:
        return max(share / _WARMUP_SHARE, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (share - _WARMUP_SHARE) / (1 - _WARMUP_SHARE)))
