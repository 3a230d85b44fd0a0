"""Teacher networks: functions from pixels to logits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn import functional as F

from compress.atomic_files import write_bytes
from compress.data.dataset import Dataset, Split
from compress.data.preprocessing import METADATA_KEY, Preprocessing
from compress.progress import Report, no_report
from compress.training.evaluation import device_of, training_place
from compress.training.loop import Recipe, train
from compress.training.random_generators import seeded
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.reader import read_metadata
from hw_profiles.onnx_io.session import open_session
from hw_profiles.torch_io.timm_models import check_timm_name
from search_spaces.arch import Arch
from search_spaces.model import build_model

# teacher(pixels): (N, C, H, W) in 0..1 -> (N, num_classes) logits, without a gradient.
Teacher = Callable[[Tensor], Tensor]
Floats = NDArray[np.float32]

_SIGNIFICANCE = 0.05
_BYTES_OF_AN_ENTRY = 200  # its key, and what Python and torch need for each
SMALLEST_TIMM_SIDE = 64  # the zoo's networks shrink an image 32 times


class ModuleTeacher:
    """A module that reads normalized images of any size, and goes where they are. ``bfloat16`` None: as the training
    that asks it."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, *, bfloat16: bool | None = None) -> None:
        self.model = model.eval()
        shape = (1, preprocessing.channels, 1, 1)
        self.mean = torch.tensor(preprocessing.mean).view(shape)
        self.std = torch.tensor(preprocessing.std).view(shape)
        self.bfloat16 = bfloat16

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits of (N, C, H, W) pixels in 0..1."""
        place = pixels.device
        if device_of(self.model) != place:
            self.model.to(place)
        bfloat16 = torch.is_autocast_enabled(place.type) if self.bfloat16 is None else self.bfloat16
        with torch.inference_mode(), torch.autocast(place.type, dtype=torch.bfloat16, enabled=bfloat16):
            logits: Tensor = self.model((pixels - self.mean.to(place)) / self.std.to(place))
        return logits.float()


class OnnxTeacher:
    """An ONNX classifier. Without a preprocessing record of ours it is given pixels in 0..1 at its own size; with one
    its classes are put in the order of the data's.

    Raises:
        InputError: not an image classifier for this data.
    """

    def __init__(self, path: Path, data: Dataset) -> None:
        metadata = read_metadata(path)
        self.path = path
        self.session = open_session(path, torch.get_num_threads())
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise InputError(f"teacher {path}: must have one input (N, C, H, W)")
        self.name, self.output = inputs[0].name, outputs[0].name
        channels, classes = inputs[0].shape[1], outputs[0].shape[-1]
        if channels != data.preprocessing.channels or classes != data.num_classes:
            raise InputError(
                f"teacher {path}: must read {data.preprocessing.channels} channels and output {data.num_classes} "
                f"classes, got {channels} and {classes}"
            )
        if inputs[0].type != "tensor(float)":
            raise InputError(f"teacher {path}: must read float32 numbers, reads {inputs[0].type}")
        self.batch, _, *sides = (side if isinstance(side, int) else 0 for side in inputs[0].shape)
        self.size = tuple(sides)
        ours = Preprocessing.from_json(metadata[METADATA_KEY]) if METADATA_KEY in metadata else None
        shape = (1, channels, 1, 1)
        self.mean = torch.tensor(ours.mean if ours else [0.0] * channels).view(shape)
        self.std = torch.tensor(ours.std if ours else [1.0] * channels).view(shape)
        self.order: list[int] | None = None
        names = data.preprocessing.class_names
        if ours and ours.class_names != names and sorted(ours.class_names) == sorted(names):
            self.order = [ours.class_names.index(name) for name in names]

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens the file anew."""
        return {name: value for name, value in vars(self).items() if name != "session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.session = open_session(self.path, torch.get_num_threads())

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits of (N, C, H, W) pixels in 0..1."""
        if all(self.size) and tuple(pixels.shape[2:]) != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True, align_corners=False)
        x = ((pixels.cpu() - self.mean) / self.std).numpy().astype(np.float32)
        logits = np.concatenate([self._run(part) for part in self._parts(x)])[: len(x)]
        logits = logits if self.order is None else logits[:, self.order]
        return torch.from_numpy(logits).to(pixels.device)

    def _parts(self, x: Floats) -> Iterator[Floats]:
        """Batches of the size that the file reads, the last one filled up with zeros."""
        if not self.batch:
            return iter([x])
        missing = -len(x) % self.batch
        filled = np.concatenate([x, np.zeros((missing, *x.shape[1:]), np.float32)])
        return iter(np.split(filled, len(filled) // self.batch))

    def _run(self, x: Floats) -> Floats:
        logits: Floats = self.session.run([self.output], {self.name: np.ascontiguousarray(x)})[0]
        return logits


class RememberingTeacher:
    """A teacher that is asked once about each image, and remembers the answer while ``most_bytes`` are enough: for
    trainings that show each image in a few views, again and again. Images on an accelerator it does not remember.

    >>> asked = []
    >>> teacher = RememberingTeacher(lambda pixels: asked.append(len(pixels)) or pixels.mean((2, 3)))
    >>> pixels = torch.rand(4, 3, 8, 8)
    >>> bool((teacher(pixels) == teacher(pixels)).all()), asked
    (True, [4])
    """

    def __init__(self, teacher: Teacher, most_bytes: int = 1 << 28) -> None:
        self.teacher, self.left = teacher, most_bytes
        self._known: dict[bytes, Tensor] = {}

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits of (N, C, H, W) pixels in 0..1."""
        if pixels.device.type != "cpu":
            return self.teacher(pixels)
        numbers = pixels.permute(0, 2, 3, 1).contiguous().numpy()
        keys = [hashlib.blake2b(image, digest_size=16).digest() for image in numbers]
        new = [place for place, key in enumerate(keys) if key not in self._known]
        if not new:
            return torch.stack([self._known[key] for key in keys])
        answers = dict(zip(new, self.teacher(pixels[new]).clone(), strict=True))
        every = [answers[place] if place in answers else self._known[key] for place, key in enumerate(keys)]
        for place, answer in answers.items():
            if self.left > 0:
                self._known[keys[place]] = answer
                self.left -= answer.nbytes + _BYTES_OF_AN_ENTRY
        return torch.stack(every)


class Upsampled(nn.Module):
    """A network of the zoo behind an enlargement to at least 64 pixels a side."""

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        scale = max(1.0, SMALLEST_TIMM_SIDE / min(size))
        self.size = [round(side * scale) for side in size]
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalized images -> logits."""
        if list(x.shape[2:]) != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", align_corners=False)
        logits: Tensor = self.model(x)
        return logits


def teacher_network(network: str | Arch, data: Dataset, *, seed: int = 0) -> nn.Module:
    """An Arch for the classes of this data, with the trained weights that it names, or an untrained network of timm.

    Raises:
        InputError: timm has no such model.
    """
    with seeded(seed):
        model = _of_timm(network, data) if isinstance(network, str) else build_model(network, seed=seed)
    return Upsampled(model, data.preprocessing.input_shape[1:])


def _of_timm(name: str, data: Dataset) -> nn.Module:
    import timm

    check_timm_name(name)
    channels = data.preprocessing.channels
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=data.num_classes, in_chans=channels)
    except (TypeError, RuntimeError, AssertionError) as error:
        raise InputError(f"timm:{name} cannot be built for {channels} channels: {error}") from None
    return model


def trained_teacher(
    network: str | Arch, data: Dataset, recipe: Recipe, folder: Path, *, seed: int = 0, report: Report = no_report
) -> Teacher:
    """A network (see :func:`teacher_network`) trained on the data, on a GPU where there is one; weights and checkpoint
    are kept in ``folder`` and found there again."""
    model = teacher_network(network, data, seed=seed)
    weights = folder / "weights.safetensors"
    if weights.is_file():
        model.load_state_dict(load_file(weights))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        model.to(training_place())
        train(model, data, recipe, seed=seed, checkpoint=folder / "checkpoint.pt", report=report)
        write_bytes(weights, save({k: v.contiguous() for k, v in model.cpu().state_dict().items()}))
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    model.to(memory_format=torch.channels_last)
    return ModuleTeacher(model, data.preprocessing, bfloat16=recipe.bfloat16)


def pixels_of(images: NDArray[np.uint8]) -> Tensor:
    """What a teacher is asked about: (N, C, H, W) in 0..1 of images (N, H, W, C).

    >>> pixels_of(np.full((2, 8, 8, 1), 255, np.uint8)).shape
    torch.Size([2, 1, 8, 8])
    """
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def teacher_accuracy(teacher: Teacher, split: Split, batch_size: int = 250) -> float:
    """Share of a split that the teacher gets right, 0..1."""
    right = 0
    for i in range(0, len(split), batch_size):
        pixels = pixels_of(split.images[i : i + batch_size])
        right += int((teacher(pixels).argmax(1).numpy() == split.labels[i : i + batch_size]).sum())
    return right / len(split)


def beats_chance(accuracy: float, split: Split) -> bool:
    """Whether an accuracy on a split shows that a teacher knows more than the most frequent class.

    One-sided binomial test at 5 %: such an accuracy or a higher one is that rare for always giving the class that is
    most frequent in the split.

    >>> split = Split(np.zeros((100, 1, 1, 1), np.uint8), np.arange(100) % 2)
    >>> beats_chance(0.7, split), beats_chance(0.55, split)
    (True, False)
    """
    chance = np.bincount(split.labels).max() / len(split)
    return bool(binom.sf(round(accuracy * len(split)) - 1, len(split), chance) < _SIGNIFICANCE)
