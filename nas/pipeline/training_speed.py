"""How fast networks train on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from compress.data.dataset import Split
from compress.data.preprocessing import Preprocessing
from compress.training.batches import Batches
from compress.training.evaluation import training_place
from compress.training.pace import wait_for
from compress.training.recipe import Recipe, label_loss
from compress.training.state import State
from compress.training.teachers import Teacher
from nas.errors import CrashError
from nas.execution.shielded import run_shielded
from nas.pipeline.run_folder import log
from search_spaces.arch import Arch
from search_spaces.model import build_model

_BATCH, _STEPS = 32, 4
_MOST_VIEWS, _FEWEST_VIEWS = 10, 2
_SHARE_OF_THE_TEACHER = 0.25  # of the time of a training, at most


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPace:
    """Images a second that a network trains at here, and that its teacher classifies, if it has one."""

    network: float
    teacher: float | None = None

    def views(self, images: int, seconds: float) -> int | None:
        """How many augmented versions of each image the teacher is asked about in a training of so many seconds: as
        many as take it a quarter of them, 2 to 10. None without a teacher.

        >>> TrainingPace(network=1800, teacher=800).views(images=45_000, seconds=900)
        4
        """
        if self.teacher is None:
            return None
        paid = int(_SHARE_OF_THE_TEACHER * seconds * self.teacher / images)
        return min(max(paid, _FEWEST_VIEWS), _MOST_VIEWS)

    def epochs(self, images: int, seconds: float) -> float:
        """How often the network sees the images in so many seconds, with the teacher's share of them taken off.

        >>> pace = TrainingPace(network=1800, teacher=800)
        >>> round(pace.epochs(images=45_000, seconds=900)), round(pace.epochs(images=45_000, seconds=90), 2)
        (27, 1.11)
        """
        views = self.views(images, seconds) or 0
        epoch = images / self.network if self.network else math.inf
        asked = 0.0 if self.teacher is None else images / self.teacher
        first = views * (epoch + asked)  # the seconds in which each version is new to the teacher
        if seconds <= first:
            return seconds / (epoch + asked)
        return views + (seconds - first) / epoch


def training_speeds(networks: Mapping[str, Arch]) -> dict[str, float]:
    """Images a second that each network trains at here, timed by a few steps in a process of its own.

    A network whose training crashes that process is left out.
    """
    found = {}
    for name, arch in networks.items():
        try:
            found[name] = float(run_shielded(images_per_second, arch, what=f"timing {name}"))
        except CrashError:
            log.info("skipping %s: its training crashes on this machine", name)
    return found


def teacher_speed(teacher: Teacher, arch: Arch) -> float:
    """Images a second that the teacher classifies here at the resolution that the network reads."""
    return float(run_shielded(_answers_per_second, teacher, arch.input_shape, what="timing the teacher"))


def _answers_per_second(teacher: Teacher, input_shape: tuple[int, int, int]) -> float:
    place = training_place()
    pixels = torch.rand(_BATCH, *input_shape).to(place)

    def timed() -> float:
        start = time.perf_counter()
        teacher(pixels)
        wait_for(place)
        return time.perf_counter() - start

    return _BATCH / median([timed() for _ in range(_STEPS)][1:])


def images_per_second(arch: Arch) -> float:
    """The median of a few whole steps of training after the first, on a GPU where there is one: augmentation, gradients
    and what the optimizer does.

    They are timed in float32 and bfloat16, and in the faster of them with one thread, too.
    """
    place = training_place()
    model = build_model(arch, seed=0).to(place).to(memory_format=torch.channels_last).train()
    state = State(model, Recipe(), _batches(arch, place), label_loss(0.0), seed=0)
    threads = torch.get_num_threads()
    seconds = {bfloat16: _step_seconds(state, bfloat16) for bfloat16 in (False, True)}
    faster = min(seconds, key=lambda bfloat16: seconds[bfloat16])
    try:
        torch.set_num_threads(1)
        alone = _step_seconds(state, faster)
    finally:
        torch.set_num_threads(threads)
    return _BATCH / min(alone, seconds[faster])


def _batches(arch: Arch, place: torch.device) -> Batches:
    """Of random images at the network's resolution."""
    channels, height, width = arch.input_shape
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (_BATCH, height, width, channels), np.uint8)
    labels = random.integers(0, arch.num_classes, _BATCH)
    names = tuple(map(str, range(arch.num_classes)))
    preprocessing = Preprocessing(
        channels=channels,
        sizes=((height, width),),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        class_names=names,
    )
    layout = torch.channels_last
    return Batches(
        Split(images, labels), preprocessing, batch_size=_BATCH, seed=0, flip=channels == 3, layout=layout, place=place
    )


def _step_seconds(state: State, bfloat16: bool) -> float:
    def timed() -> float:
        start = time.perf_counter()
        state.learn(0.0, bfloat16=bfloat16)
        wait_for(state.batches.place)
        return time.perf_counter() - start

    return median([timed() for _ in range(_STEPS)][1:])
