"""The training loop of all stages: recipe, checkpoints, augmentation, schedule."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.argument_checks import is_number, is_whole, is_within
from compress.atomic_files import write_bytes
from compress.data.dataset import Dataset, Split
from compress.data.preprocessing import Preprocessing
from compress.progress import Report, no_report
from compress.training.evaluation import device_of
from compress.training.random_generators import preserved_generators, seed_at
from hw_profiles.errors import InputError

# loss(logits, labels, pixels): pixels are the augmented images, (N, C, H, W) in 0..1, as a teacher wants them.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
# before_step(share): share of the training that is over, in [0, 1).
BeforeStep = Callable[[float], None]

_WARMUP_SHARE = 0.1
_CHECKPOINT_SECONDS = 15.0
_LARGEST_SHIFT = 1 / 8
_FEW_IMAGES = 10_000
_LAYERS_SEED = 1 << 31  # far from the seeds of the batches, so that dropout does not follow the augmentation


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How to train: SGD with Nesterov momentum, the learning rate warmed up and then lowered by a cosine.

    Training ends after ``epochs``, or after ``seconds`` where that comes first; the learning rate follows whichever
    is further on, so it always comes down to zero. ``bfloat16`` None measures which number format is faster here.
    ``batch_size`` None is 128, or 32 for fewer than 10,000 images; ``learning_rate`` is meant for 128 and scaled to
    the batch. ``flip`` None flips colour images only. ``channels_last`` is how images and weights lie in memory: faster
    as a rule; without it other kernels run, where those of a network crash.
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

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "seconds"):
            value = getattr(self, name)
            if not is_number(value, 0) and not (name == "seconds" and value is None):
                raise InputError(f"Recipe.{name} must be above 0, got {value!r}")
        if self.batch_size is not None and not is_whole(self.batch_size, 1):
            raise InputError(f"Recipe.batch_size must be at least 1, got {self.batch_size!r}")
        for name in ("bfloat16", "flip"):
            if getattr(self, name) not in (None, True, False):
                raise InputError(f"Recipe.{name} must be True, False or None, got {getattr(self, name)!r}")
        if self.channels_last not in (True, False):
            raise InputError(f"Recipe.channels_last must be True or False, got {self.channels_last!r}")
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
    """What a training took."""

    steps: int
    epochs: float
    seconds: float
    images_per_second: float
    bfloat16: bool

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
        )


def label_loss(smoothing: float) -> Loss:
    """Cross-entropy with the labels."""

    def loss(logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    return loss


def train(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    loss: Loss | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    report: Report = no_report,
    before_step: BeforeStep | None = None,
) -> Training:
    """Train ``model`` in place on ``data.train``; ``before_step`` is called with the share of it that is over.

    It is trained where its parameters are (after ``model.to("cuda")`` on that accelerator); a loss gets tensors there.

    With ``checkpoint`` the state is kept there every 15 seconds; where the file is there already, training goes on
    from it. The batches, their augmentation and what the model draws from torch's global generators (dropout) depend
    on (seed, step) alone, so a training that was interrupted is the same training. After it the generators are as they
    were, and the model is in evaluation mode.
    """
    loss = loss or label_loss(recipe.label_smoothing)
    batch_size = recipe.batch_size or (128 if len(data.train) >= _FEW_IMAGES else 32)
    steps_per_epoch = max(1, len(data.train) // batch_size)
    total = max(1, round(recipe.epochs * steps_per_epoch))
    flip = data.preprocessing.channels == 3 if recipe.flip is None else recipe.flip
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    model.to(memory_format=layout)
    place = device_of(model)
    batches = _Batches(
        data.train, data.preprocessing, batch_size=batch_size, seed=seed, flip=flip, layout=layout, place=place
    )
    state = _State(model, recipe, recipe.learning_rate * batch_size / 128)
    with preserved_generators(place), _in_training_mode(model):
        if checkpoint is not None and checkpoint.is_file():
            state.load(checkpoint)
        elif recipe.bfloat16 is None:
            state.bfloat16 = _bfloat16_is_faster(model, batches)
        start, saved = time.perf_counter() - state.seconds, time.perf_counter()
        first_step = state.step
        while (share := state.share(total)) < 1:
            seed_at(place, _LAYERS_SEED + (seed + 1) * 1_000_003 + state.step)
            if before_step is not None:
                before_step(share)
            state.learn(loss, batches, share)
            state.seconds = time.perf_counter() - start
            report(state.share(total), f"epoch {state.step / steps_per_epoch:.1f}")
            if checkpoint is not None and time.perf_counter() - saved > _CHECKPOINT_SECONDS:
                state.save(checkpoint)
                saved = time.perf_counter()
        if checkpoint is not None and state.step > first_step:
            state.save(checkpoint)
    rate = state.step * batch_size / max(state.seconds, 1e-9)
    return Training(state.step, state.step / steps_per_epoch, state.seconds, rate, state.bfloat16)


@contextmanager
def _in_training_mode(model: nn.Module) -> Iterator[None]:
    model.train()
    try:
        yield
    finally:
        model.eval()


class _State:
    """Model, optimizer and how far training is; what a checkpoint holds."""

    def __init__(self, model: nn.Module, recipe: Recipe, learning_rate: float) -> None:
        self.model = model
        self.learning_rate = learning_rate
        self.recipe = recipe
        self.bfloat16 = bool(recipe.bfloat16)
        self.step = 0
        self.seconds = 0.0
        decayed = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.SGD(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=learning_rate,
            momentum=0.9,
            nesterov=True,
        )

    def share(self, total: int) -> float:
        by_steps = self.step / total
        return by_steps if self.recipe.seconds is None else max(by_steps, self.seconds / self.recipe.seconds)

    def learn(self, loss: Loss, batches: _Batches, share: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * _schedule(share)
        pixels, labels = batches.at(self.step)
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            logits = self.model(batches.normalised(pixels))
            value = loss(logits.float(), labels, pixels)  # a teacher in it runs in the same format
        self.optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        progress = {"step": self.step, "seconds": self.seconds, "bfloat16": self.bfloat16}
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), **progress}, buffer)
        write_bytes(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.seconds = saved["step"], saved["seconds"]
        if self.recipe.bfloat16 is None:  # what was measured once holds for all of the training
            self.bfloat16 = saved["bfloat16"]


class _Batches:
    """Augmented batches by step number."""

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
        self.per_epoch = max(1, len(split) // batch_size)
        self.seed = seed
        self.flip = flip
        self.layout = layout
        shape = (1, preprocessing.channels, 1, 1)
        self.place = place
        self.mean = torch.tensor(preprocessing.mean, device=place).view(shape)
        self.std = torch.tensor(preprocessing.std, device=place).view(shape)
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
        pixels = augment(images, generator, flip=self.flip).to(self.place).float() / 255
        return pixels.contiguous(memory_format=self.layout), self.labels[chosen].to(self.place)

    def normalised(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std


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
    index = torch.arange(count)[:, None, None]
    return images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _shifted(size: int, count: int, generator: torch.Generator) -> Tensor:
    reach = int(size * _LARGEST_SHIFT)
    offsets = torch.randint(-reach, reach + 1, (count, 1), generator=generator)
    return (torch.arange(size)[None] + offsets).clamp(0, size - 1)


def _schedule(share: float) -> float:
    if share < _WARMUP_SHARE:
        return max(share / _WARMUP_SHARE, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (share - _WARMUP_SHARE) / (1 - _WARMUP_SHARE)))


def _bfloat16_is_faster(model: nn.Module, batches: _Batches) -> bool:
    """The faster of float32 and bfloat16 for a step of this model, by the best of three each; nothing is learnt."""
    buffers = {name: value.clone() for name, value in model.state_dict().items()}
    pixels, labels = batches.at(0)
    best = {enabled: min(_step_seconds(model, batches, pixels, labels, enabled)) for enabled in (False, True)}
    model.load_state_dict(buffers)
    model.zero_grad()
    return best[True] < best[False]


def _step_seconds(
    model: nn.Module, batches: _Batches, pixels: Tensor, labels: Tensor, bfloat16: bool
) -> Iterator[float]:
    for _ in range(3):
        start = time.perf_counter()
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            logits = model(batches.normalised(pixels))
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        if pixels.device.type != "cpu":
            torch.accelerator.synchronize(pixels.device)
        yield time.perf_counter() - start
