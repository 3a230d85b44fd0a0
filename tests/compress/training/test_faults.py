"""Trainings that meet a fault: they diverge, memory runs out, or there are hardly any images."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.data.dataset import Dataset, Split
from compress.data.in_memory import arrays_dataset
from compress.training import loop, state
from compress.training.faults import (
    DivergedError,
    TooLargeError,
    TrainingError,
    is_out_of_memory,
    single_values_normalized,
)
from compress.training.loop import Recipe, Training, label_loss, train
from compress.training.random_generators import seeded
from hw_profiles.errors import InputError
from search_spaces import build_model, preset

USUAL = label_loss(0.05)


def small() -> nn.Module:
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, 10)
        )


def images(count: int, classes: int, side: int = 16) -> Dataset:
    """All of them are training images; four of these are the others too."""
    pixels = np.random.default_rng(0).integers(0, 256, (max(count, 6 * classes), side, side, 1), np.uint8)
    data = arrays_dataset(pixels, np.arange(len(pixels)) % classes)
    train_split = Split(pixels[:count], (np.arange(count) % classes).astype(np.int64))
    return replace(data, train=train_split, val=train_split.spread(4), test=train_split.spread(4))


DATA = images(320, 10)


class Loss:
    """The usual one; NaN, or what ``spoil`` makes of it, when it is asked for the given times."""

    def __init__(self, *times: int, spoil: Callable[[Tensor], Tensor] = lambda value: value * torch.nan) -> None:
        self.times, self.spoil, self.asked = times, spoil, 0

    def __call__(self, logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
        value = USUAL(logits, labels, pixels)
        self.asked += 1
        return self.spoil(value) if self.asked - 1 in self.times else value


class SteepSlope(torch.autograd.Function):
    """Of finite numbers whose norm is not: to clip it leaves zeros, after which nothing would show it."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient * 1e30


@pytest.mark.parametrize(
    "spoil", [lambda value: value * torch.nan, lambda value: value + torch.inf, SteepSlope.apply],
    ids=["loss NaN", "loss infinite", "norm infinite"],
)  # fmt: skip
def test_a_training_that_diverges_goes_back_and_on(
    spoil: Callable[[Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "fitnas")
    model, rates = small(), []
    loss = Loss(13, spoil=spoil)
    step = torch.optim.SGD.step

    def noted(self: torch.optim.SGD, *rest: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", noted)
        found = train(model, DATA, Recipe(epochs=3), loss=loss)
    assert found.rollbacks == 1
    assert found.steps == 30
    assert all(p.isfinite().all() for p in model.state_dict().values())
    assert "diverged before step 20" in caplog.text
    assert "from step 10 with 0.25 times its learning rate" in caplog.text
    assert len(rates) == 40
    assert rates[20] == pytest.approx(rates[10] / 4)


def test_it_goes_on_from_the_very_state_that_was_good() -> None:
    """Its steps after that are those of a training with the lower rate all along, but for the first ones."""
    starts: list[Tensor] = []

    def noted(share: float) -> None:
        starts.append(torch.cat([p.detach().flatten() for p in model.state_dict().values()]))

    model = small()
    train(model, DATA, Recipe(epochs=2), loss=Loss(10), before_step=noted)
    assert torch.equal(starts[10], starts[20])
    assert not torch.equal(starts[11], starts[10])


def test_weights_that_are_not_finite_are_found_though_the_loss_is() -> None:
    asked = 0

    def spoil_once(share: float) -> None:
        nonlocal asked
        asked += 1
        if asked == 15:
            model.unused.data.fill_(torch.inf)  # type: ignore[operator]

    model = small()
    model.register_parameter("unused", nn.Parameter(torch.zeros(3)))
    assert train(model, DATA, Recipe(epochs=2), before_step=spoil_once).rollbacks == 1
    assert model.unused.isfinite().all()  # type: ignore[operator]


def test_the_last_steps_are_looked_at_too() -> None:
    found = train(small(), DATA, Recipe(epochs=2.4), loss=Loss(23))
    assert (found.steps, found.rollbacks) == (24, 1)


def test_it_is_given_up_after_three_times_in_one_line() -> None:
    with pytest.raises(DivergedError) as caught:
        train(small(), DATA, Recipe(epochs=3, learning_rate=0.07), loss=Loss(*range(5, 1000)))
    said = str(caught.value)
    assert "\n" not in said
    assert "after 3 rollbacks" in said
    assert "use a lower learning rate than 0.07" in said
    assert isinstance(caught.value, InputError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == said


def test_a_rate_far_too_high_is_told() -> None:
    with pytest.raises(DivergedError, match="after 3 rollbacks"):
        train(small(), DATA, Recipe(epochs=3, learning_rate=1e30))


def test_weights_that_are_not_finite_from_the_start_are_told() -> None:
    model = small()
    next(model.parameters()).data.fill_(torch.nan)
    with pytest.raises(DivergedError, match="initial weights of a training are not all finite"):
        train(model, DATA, Recipe(epochs=1))


def test_a_training_that_diverged_and_was_interrupted_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedError(Exception):
        pass

    def spoilt(logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
        """By the numbers of the batch alone, and not with a lower rate."""
        value = USUAL(logits, labels, pixels)
        return value * torch.nan if pixels.sum() == bad and rate() > 0.005 else value

    def rate() -> float:
        return float(next(iter(optimizers)).param_groups[0]["lr"])

    optimizers: list[torch.optim.SGD] = []
    usual = torch.optim.SGD.__init__

    def noted(self: torch.optim.SGD, *args: Any, **options: Any) -> None:
        usual(self, *args, **options)
        optimizers[:] = [self]

    monkeypatch.setattr(torch.optim.SGD, "__init__", noted)
    sums: list[float] = []

    def summed(logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
        sums.append(float(pixels.sum()))
        return USUAL(logits, labels, pixels)

    train(small(), DATA, Recipe(epochs=3), loss=summed)
    bad = sums[17]
    whole = small()
    assert train(whole, DATA, Recipe(epochs=3), loss=spoilt).rollbacks == 1
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    for last in (16, 24):
        path, steps = tmp_path / f"{last}.pt", 0

        def stop(share: float, note: str, last: int = last) -> None:
            nonlocal steps
            steps += 1
            if steps == last:
                raise StoppedError

        with pytest.raises(StoppedError):
            train(small(), DATA, Recipe(epochs=3), loss=spoilt, checkpoint=path, report=stop)
        resumed = small()
        assert train(resumed, DATA, Recipe(epochs=3), loss=spoilt, checkpoint=path).rollbacks == 1
        for name, value in whole.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], value)


@pytest.mark.parametrize("began_in_channels_last", [True, False])
def test_a_checkpoint_goes_on_in_another_memory_format(
    began_in_channels_last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fused step takes numbers in the order of the memory; the usual one by their places."""

    def stop(share: float, note: str) -> None:
        if share > 0.6:
            raise KeyboardInterrupt

    def wide() -> nn.Module:
        with seeded(0):
            return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3, stride=4), nn.Flatten(), nn.Linear(72, 10))

    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    found: list[dict[str, Tensor]] = []
    for is_plain in (state._is_plain, lambda parameter: False):
        monkeypatch.setattr(state, "_is_plain", is_plain)
        path, model = tmp_path / f"{len(found)}.pt", wide()
        recipe = Recipe(epochs=3, learning_rate=0.05, channels_last=began_in_channels_last)
        with pytest.raises(KeyboardInterrupt):
            train(wide(), DATA, recipe, checkpoint=path, report=stop)
        train(model, DATA, replace(recipe, channels_last=not began_in_channels_last), checkpoint=path)
        found.append(model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-4, rtol=1e-3)


def test_gradients_that_lie_otherwise_are_added_in_the_right_places() -> None:
    def turned(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad = parameter.grad.t().contiguous().t()

    found = []
    for turn in (False, True):
        with seeded(0):
            linear = nn.Linear(256, 10)
        if turn:
            linear.weight.register_post_accumulate_grad_hook(turned)  # type: ignore[no-untyped-call]
        train(nn.Sequential(nn.Flatten(), linear), DATA, Recipe(epochs=2))
        found.append(linear.weight.detach())
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


class Hungry(nn.Module):
    """Takes at most so many images at a time. Without BatchNorm, whose statistics are those of each part."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error, self.sizes = most, error, list[int]()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, stride=4), nn.Flatten(), nn.Dropout(0.0), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise self.error
        self.sizes.append(len(x))
        found: Tensor = self.layers(x)
        return found


ERRORS = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("most", "parts", "sizes"), [(31, 2, [16, 16]), (5, 8, [4] * 8), (1, 32, [1] * 32)])
def test_where_memory_runs_out_a_batch_is_taken_in_parts(
    most: int, parts: int, sizes: list[int], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "fitnas")
    torch.manual_seed(0)
    usual = Hungry(1000, error)
    torch.manual_seed(0)
    model = Hungry(most, error)
    recipe = Recipe(epochs=1.2, learning_rate=0.02)
    found = train(model, DATA, recipe)
    assert found.parts == parts
    assert f"into parts of at most {sizes[0]}" in caplog.text
    assert model.sizes[:parts] == sizes
    assert found.steps == train(usual, DATA, recipe).steps
    for name, value in usual.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, atol=1e-5, rtol=1e-4)


def test_parts_of_unequal_size_count_by_their_images() -> None:
    data = images(5, 2)
    torch.manual_seed(0)
    usual = Hungry(1000, MemoryError())
    torch.manual_seed(0)
    model = Hungry(3, MemoryError())
    for each in (usual, model):
        train(each, data, Recipe(epochs=3))
    assert model.sizes[:2] == [3, 2]
    for name, value in usual.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, atol=1e-5, rtol=1e-4)


def test_kernels_that_cannot_be_made_are_a_lack_of_memory_where_there_was_one_before() -> None:
    class Starved(Hungry):
        def forward(self, x: Tensor) -> Tensor:
            if 4 < len(x) <= 8:
                raise RuntimeError("could not create a primitive")
            return super().forward(x)

    assert train(Starved(8, MemoryError()), DATA, Recipe(epochs=1)).parts == 8
    with pytest.raises(RuntimeError, match="could not create a primitive"):
        train(Starved(8, MemoryError()), DATA, Recipe(epochs=1, batch_size=8))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_one_image_that_is_too_much_is_told_in_one_line(error: Exception) -> None:
    with pytest.raises(TooLargeError, match="even with a batch size of 1") as caught:
        train(Hungry(0, error), DATA, Recipe(epochs=1))
    assert "\n" not in str(caught.value)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), MemoryError)  # so workers tell it as that
    assert isinstance(caught.value, TrainingError)


def test_an_optimizer_without_memory_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> None:
        raise ERRORS[0]

    monkeypatch.setattr(torch.optim.SGD, "step", fail)
    with pytest.raises(TooLargeError):
        train(small(), DATA, Recipe(epochs=1))


def test_other_errors_are_no_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train(Hungry(0, RuntimeError("shape mismatch")), DATA, Recipe(epochs=1))


def with_values_of_one() -> nn.Module:
    """BatchNorm of one number for each channel and image, of both dimensions."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 16), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 10)
    )


@pytest.mark.parametrize(
    ("count", "classes", "recipe"),
    [(5, 2, Recipe(epochs=4)), (1, 2, Recipe(epochs=4)), (33, 2, Recipe(epochs=2)), (9, 2, Recipe(epochs=1, batch_size=1)),
     (2000, 500, Recipe(epochs=0.1)), (6, 2, Recipe(seconds=0.3, epochs=1e6))],
)  # fmt: skip
@pytest.mark.parametrize(
    "build",
    [with_values_of_one, lambda: build_model(preset("resnet8", input_shape=(1, 16, 16)))],
    ids=["one value", "resnet8"],
)
def test_few_images_train(build: Callable[[], nn.Module], count: int, classes: int, recipe: Recipe) -> None:
    model = build()
    if classes > 10:
        model = nn.Sequential(model, nn.Linear(10, classes))
    before = [p.clone() for p in model.parameters()]
    found = train(model, images(count, classes), recipe)
    assert found.steps > 0
    assert all(p.isfinite().all() for p in model.parameters())
    assert any(not torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_batch_normalization_goes_on_to_learn_after_a_single_value() -> None:
    model = nn.BatchNorm2d(3).train()
    before = model.running_mean
    assert before is not None
    with single_values_normalized(model):
        model(torch.ones(1, 3, 1, 1))
        assert before.eq(0).all()
        assert model.training
        model(torch.ones(2, 3, 1, 1))
    assert before.gt(0).all()


def test_images_per_second_and_rate_are_those_of_the_images_there_are() -> None:
    rates: list[float] = []
    optimizer = torch.optim.SGD.step

    def noted(self: torch.optim.SGD, *rest: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return optimizer(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", noted)
        found = train(small(), images(5, 2), Recipe(epochs=20))
    assert found.images_per_second * found.seconds == pytest.approx(5 * 20)
    assert max(rates) <= 0.1 * 5 / 128


class Heads(nn.Module):
    """Says more in training mode than one tensor of logits, or nothing that can be learned from."""

    def __init__(self, *, learns: bool) -> None:
        super().__init__()
        self.layers, self.learns = small(), learns

    def forward(self, x: Tensor) -> Any:
        if self.learns:
            return (self.layers(x), x) if self.training else self.layers(x)
        with torch.no_grad():
            return self.layers(x)


@pytest.mark.parametrize(("learns", "got"), [(True, "got tuple"), (False, "got a tensor without a gradient")])
@pytest.mark.parametrize("bfloat16", [False, None])
def test_what_cannot_be_learned_from_is_told(learns: bool, got: str, bfloat16: bool | None) -> None:
    with pytest.raises(InputError, match=f"Heads: in training mode a module must return one tensor of logits.*{got}"):
        train(Heads(learns=learns), images(20, 2), Recipe(epochs=1, bfloat16=bfloat16))


def test_what_two_trainings_met_is_told_of_both() -> None:
    one = Training(1, 1.0, 1.0, 1.0, bfloat16=False, threads=1.0, rollbacks=1, parts=2)
    other = Training(1, 1.0, 3.0, 1.0, bfloat16=False, threads=2.0, rollbacks=2, parts=1)
    both = one + other
    assert (both.threads, both.rollbacks, both.parts) == (1.75, 3, 2)
