"""Trainings that several processes share, here on two CPUs."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.data.in_memory import arrays_dataset
from compress.training.data_parallel import learn_on
from compress.training.loop import Recipe, Training, label_loss, train
from compress.training.random_generators import seeded

CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 1), np.uint8)
DATA = arrays_dataset(PIXELS, np.arange(120) % 4)
RECIPE = Recipe(epochs=2, batch_size=16)


def small() -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))


def halves(logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
    """The usual loss, for which memory suffices for half a batch at a time."""
    if len(logits) > 8:
        raise MemoryError
    return label_loss(0.05)(logits, labels, pixels)


def learn(model: nn.Module, checkpoint: Path | None = None, recipe: Recipe = RECIPE) -> Training:
    return train(model, DATA, recipe, checkpoint=checkpoint)


def fail(model: nn.Module) -> None:
    raise ValueError("this process cannot train")


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    alone, together = small(), small()
    train(alone, DATA, RECIPE, loss=halves)
    done: list[Training] = []
    file = tmp_path / "checkpoint.pt"
    learn_on(
        [CPU, CPU], together, lambda model: done.append(learn(model, file)), functools.partial(learn, checkpoint=file)
    )
    assert done[0].epochs == 2
    assert torch.load(file, weights_only=True)["step"] == done[0].steps
    for (name, mine), theirs in zip(together.named_parameters(), alone.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4), name
    statistics = together.get_buffer("1.running_var")
    assert together.get_buffer("1.num_batches_tracked") == done[0].steps
    assert (statistics < 1).all()
    assert (statistics > alone.get_buffer("1.running_var")).all()  # which was updated twice a step from the initial 1


@pytest.mark.slow
def test_the_processes_end_at_the_same_step_where_the_clock_decides() -> None:
    model = small()
    recipe = Recipe(epochs=1e6, seconds=0.5, batch_size=16)
    learn_on([CPU, CPU], model, functools.partial(learn, recipe=recipe), functools.partial(learn, recipe=recipe))
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.slow
def test_an_error_of_another_process_ends_the_training() -> None:
    with pytest.raises(RuntimeError):
        learn_on([CPU, CPU], small(), learn, fail)
