"""The training loop of all stages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from compress.data.dataset import Dataset
from compress.progress import Report, no_report
from compress.training.batches import Batches
from compress.training.data_parallel import agreed, rank
from compress.training.evaluation import device_of
from compress.training.pace import (
    Pace,
    Setting,
    bfloat16_is_faster,
    settings_to_try,
    threads_restored,
    use_threads,
    wait_for,
)
from compress.training.random_generators import preserved_generators
from compress.training.recipe import BeforeStep, Loss, Recipe, Training, label_loss, usual_batch_size
from compress.training.state import State
from compress.training.torch_settings import usual_torch_settings
from hw_profiles.errors import InputError

__all__ = ["BeforeStep", "Loss", "Recipe", "Training", "label_loss", "train"]

_CHECKPOINT_SECONDS = 15.0


@usual_torch_settings()
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

    With ``recipe.seconds`` torch's threads, up to as many as there are now, and the number format are those of the
    fastest steps. A training that diverges goes back to its last good state, and on with a lower rate: then a share may
    be reported again. A batch for which the memory does not suffice is taken in parts; a loss is given these, and
    should be a mean over images.

    Raises:
        InputError: every parameter of the module is frozen.
        TrainingError: the training diverged four times, or one image at a time is too much for the memory.
    """
    check_can_learn(model)
    batch_size = recipe.batch_size or usual_batch_size(len(data.train))
    flip = data.preprocessing.channels == 3 if recipe.flip is None else recipe.flip
    layout = torch.channels_last if recipe.channels_last and _is_of_images(model) else torch.contiguous_format
    model.to(memory_format=layout)
    place = device_of(model)
    batches = Batches(
        data.train,
        data.preprocessing,
        batch_size=batch_size,
        seed=seed,
        flip=flip,
        layout=layout,
        place=place,
        views=recipe.views,
        augmentation=recipe.augmentation,
    )
    total = max(1, round(recipe.epochs * batches.per_epoch))
    state = State(model, recipe, batches, loss or label_loss(recipe.label_smoothing), seed)
    with preserved_generators(place), _in_training_mode(model), threads_restored() as threads:
        start = saved = time.perf_counter()
        if checkpoint is not None and checkpoint.is_file():
            state.load(checkpoint)
        first_step, start = state.step, start - state.seconds
        pace = _pace(state, threads)
        while not _is_over(state, total):
            is_kept = state.is_look_due and state.look()
            if is_kept and checkpoint is not None and rank() == 0 and time.perf_counter() - saved > _CHECKPOINT_SECONDS:
                state.save(checkpoint)
                saved = time.perf_counter()
            share = state.share(total)
            state.seed_layers()
            if before_step is not None:
                before_step(share)
            _learn(state, share, pace)
            state.seconds = agreed(time.perf_counter() - start, place)
            report(state.share(total), f"epoch {state.step / batches.per_epoch:.1f}")
        if checkpoint is not None and rank() == 0 and state.step > first_step:
            state.save(checkpoint)
    return Training(
        steps=state.step,
        epochs=state.step / batches.per_epoch,
        seconds=state.seconds,
        images_per_second=state.step * batches.batch_size / max(state.seconds, 1e-9),
        bfloat16=bool(state.bfloat16),
        threads=pace.mean_threads,
        rollbacks=state.rollbacks,
        parts=state.parts,
    )


def check_can_learn(model: nn.Module) -> None:
    """Raise an InputError where no parameter may be trained.

    >>> check_can_learn(nn.Linear(2, 2).requires_grad_(False))
    Traceback (most recent call last):
    hw_profiles.errors.InputError: Linear: nothing to train, all 2 parameters are frozen \
(requires_grad is False); call .requires_grad_(True) on those to be trained
    """
    parameters = list(model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        raise InputError(
            f"{type(model).__name__}: nothing to train, all {len(parameters)} parameters are frozen "
            "(requires_grad is False); call .requires_grad_(True) on those to be trained"
        )


def _is_of_images(model: nn.Module) -> bool:
    """Whether no tensor has five sides, as weights of volumes do: torch puts only those of four with channels last."""
    return all(tensor.ndim != 5 for tensor in (*model.parameters(), *model.buffers()))


def _is_over(state: State, total: int) -> bool:
    """Whether all is done, and the end is a good one; a training that diverged in its last steps goes back first."""
    return state.share(total) >= 1 and (state.look() or state.share(total) >= 1)


def _pace(state: State, threads: int) -> Pace:
    """Only where the time is limited may threads depend on the clock."""
    recipe, place = state.recipe, state.batches.place
    if recipe.seconds is None and state.bfloat16 is None:
        state.bfloat16 = bool(agreed(bfloat16_is_faster(state.model, state.batches), place))
    if recipe.seconds is None:
        return Pace([Setting(threads, bool(state.bfloat16))])
    return Pace(settings_to_try({1, threads} if place.type == "cpu" else {threads}, state.bfloat16))


def _learn(state: State, share: float, pace: Pace) -> None:
    setting = pace.setting
    use_threads(setting.threads)
    start = time.perf_counter()
    state.learn(share, bfloat16=setting.bfloat16)
    if pace.is_comparing:
        wait_for(state.batches.place)
    pace.took(agreed(time.perf_counter() - start, state.batches.place))
    if state.recipe.bfloat16 is None and state.bfloat16 is None and pace.is_format_chosen:
        state.bfloat16 = pace.chosen.bfloat16


@contextmanager
def _in_training_mode(model: nn.Module) -> Iterator[None]:
    model.train()
    try:
        yield
    finally:
        model.eval()
