"""The training loop and the teachers."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress import Artifact, Context
from compress.data.dataset import Dataset
from compress.data.in_memory import arrays_dataset
from compress.data.preprocessing import METADATA_KEY
from compress.distillation.distill import soft_target_loss
from compress.training.augmentation import LIGHT, drawn
from compress.training.evaluation import evaluate, predict
from compress.training.loop import Recipe, train
from compress.training.teachers import ModuleTeacher, OnnxTeacher, teacher_accuracy, trained_teacher
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.torch_io.timm_models import check_timm_name
from search_spaces import build_model, preset

SMALL = preset("resnet8", input_shape=(1, 16, 16))


@pytest.fixture(scope="module")
def digits(context: Context) -> Dataset:
    return context.data


@pytest.fixture(scope="module")
def trained(learnt: Artifact) -> nn.Module:
    return learnt.model()


def test_training_learns_the_digits(trained: nn.Module, digits: Dataset) -> None:
    assert evaluate(trained, digits.val, digits.preprocessing) > 0.6  # by chance it is 0.1
    predictions = predict(trained, digits.val, digits.preprocessing)
    assert evaluate(trained, digits.val, digits.preprocessing) == np.mean(predictions == digits.val.labels)


class KilledError(Exception):
    pass


def with_dropout() -> nn.Module:
    model = build_model(SMALL)
    return nn.Sequential(nn.Dropout(0.2), model)


@pytest.mark.parametrize("build", [lambda: build_model(SMALL), with_dropout], ids=["plain", "dropout"])
def test_a_training_that_was_interrupted_is_the_same_training(
    build: Callable[[], nn.Module], digits: Dataset, tmp_path: Path
) -> None:
    recipe = Recipe(epochs=1)
    whole = build()
    result = train(whole, digits, recipe, seed=5)

    def die_late(share: float, note: str) -> None:
        if share > 0.6:
            raise KilledError

    from compress.training import loop as module

    before, module._CHECKPOINT_SECONDS = module._CHECKPOINT_SECONDS, 0.0
    try:
        with pytest.raises(KilledError):
            train(build(), digits, recipe, seed=5, checkpoint=tmp_path / "c.pt", report=die_late)
    finally:
        module._CHECKPOINT_SECONDS = before
    assert (tmp_path / "c.pt").is_file()
    torch.rand(7)  # another process has other random numbers
    resumed = build()
    again = train(resumed, digits, recipe, seed=5, checkpoint=tmp_path / "c.pt")
    assert again.steps == result.steps
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=0, rtol=0)


@pytest.mark.parametrize("fails", [False, True])
def test_a_training_leaves_the_users_generator_alone(fails: bool, digits: Dataset) -> None:
    def report(share: float, note: str) -> None:
        if fails:
            raise KeyboardInterrupt

    model, before = with_dropout(), torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        train(model, digits, Recipe(epochs=0.1, bfloat16=None), report=report)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in model.modules())


def test_each_step_drops_others_and_each_seed_too(digits: Dataset) -> None:
    seen: list[Tensor] = []
    model = with_dropout()
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output[0] == 0))
    for seed in (0, 1):
        train(model, digits, Recipe(epochs=0.1), seed=seed)
    assert len({tuple(zeros.flatten().tolist()) for zeros in seen}) == len(seen) > 4


def test_time_ends_a_training_and_the_rate_comes_down(digits: Dataset) -> None:
    shares: list[float] = []
    result = train(
        build_model(SMALL), digits, Recipe(epochs=1e6, seconds=0.5), report=lambda share, note: shares.append(share)
    )
    assert result.steps == len(shares)
    assert shares == sorted(shares)
    assert shares[-1] >= 1
    assert result.seconds >= 0.5


def test_a_network_learns_where_it_is(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of "meta" have a place and no numbers; an operation over two places is an error."""
    seen: set[str] = set()

    def noted(device_type: str, **options: object) -> nullcontext[None]:
        seen.add(device_type)
        return nullcontext()

    monkeypatch.setattr(torch, "autocast", noted)  # meta has none of its own
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type: bool(seen.add(device_type)))
    taught = soft_target_loss(ModuleTeacher(build_model(SMALL).to("meta"), digits.preprocessing), 4.0, 0.5)

    steps = list[int]()

    def loss(logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
        if not steps:
            seen.clear()  # what was asked before the first step
        steps.append(len(labels))
        value = taught(logits, labels, pixels)
        seen.update(each.device.type for each in (logits, labels, pixels, value))
        return value

    model = build_model(SMALL).to("meta")
    train(model, digits, Recipe(epochs=0.1), loss=loss)
    assert seen == {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert len(steps) > 1


def test_measuring_the_number_format_changes_no_weight(digits: Dataset) -> None:
    plain, measured = build_model(SMALL), build_model(SMALL)
    chosen = train(measured, digits, Recipe(epochs=0.1, bfloat16=None), seed=1)
    train(plain, digits, Recipe(epochs=0.1, bfloat16=chosen.bfloat16), seed=1)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(measured.state_dict()[name], value, atol=0, rtol=0)


def test_augmented_images_are_shifted_and_mirrored_ones() -> None:
    images = torch.arange(64 * 64, dtype=torch.float32).reshape(64, 1, 8, 8)
    seen = drawn(LIGHT, tuple(images.shape), torch.Generator().manual_seed(0), flip=True).applied(images)
    mirrored = sum(bool((row[0, 0, 0] > row[0, 0, -1]).item()) for row in seen)
    assert 16 < mirrored < 48
    for before, after in zip(images, seen, strict=True):
        assert set(after.flatten().tolist()) <= set(before.flatten().tolist())
        assert after.unique().numel() >= 49
    unflipped = drawn(LIGHT, tuple(images.shape), torch.Generator().manual_seed(0), flip=False).applied(images)
    assert all(row[0, 0, 0] < row[0, 0, -1] for row in unflipped)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": 0}, "epochs must be above 0, got 0"),
        ({"epochs": "3"}, "epochs must be above 0, got '3'"),
        ({"epochs": float("inf")}, "epochs must be above 0, got inf"),
        ({"seconds": -1.0}, "seconds must be above 0, got -1.0"),
        ({"learning_rate": 0}, "learning_rate must be above 0, got 0"),
        ({"channels_last": None}, "channels_last must be one of True, False, got None"),
        ({"bfloat16": "no"}, "bfloat16 must be one of True, False, None, got 'no'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0 and below 1, got -1.0"),
        ({"label_smoothing": 2.0}, "label_smoothing must be at least 0 and below 1, got 2.0"),
        ({"weight_decay": 1.0}, "weight_decay must be at least 0 and below 1, got 1.0"),
        *(
            ({name: True}, f"{name} must be .*, got True")
            for name in ("epochs", "seconds", "batch_size", "learning_rate")
        ),
        *(({name: False}, f"{name} must be .*, got False") for name in ("weight_decay", "label_smoothing")),
    ],
)
def test_impossible_recipes_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Recipe(**wrong)


@pytest.mark.parametrize("channels_last", [True, False])
def test_weights_and_gradients_lie_in_memory_as_the_recipe_says(channels_last: bool, digits: Dataset) -> None:
    model = build_model(SMALL).to(memory_format=torch.channels_last)
    train(model, digits, Recipe(epochs=0.02, channels_last=channels_last))
    kernels = [p for p in model.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert kernels
    for kernel in kernels:
        for tensor in (kernel, kernel.grad):
            assert tensor is not None
            assert tensor.is_contiguous() != channels_last
            assert tensor.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_images_lie_in_memory_as_the_recipe_says() -> None:
    images = np.zeros((40, 8, 8, 3), np.uint8)
    data, seen = arrays_dataset(images, np.arange(40) % 2), []

    def loss(logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
        seen.append(pixels.is_contiguous())
        return logits.sum()

    for recipe in (Recipe(epochs=1), Recipe(epochs=1).alternative):
        train(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), data, recipe, loss=loss)
    assert seen == [False, True]


def test_the_alternative_is_contiguous_and_in_float32() -> None:
    assert Recipe(epochs=3, bfloat16=None).alternative == Recipe(epochs=3, bfloat16=False, channels_last=False)


def test_an_onnx_teacher_says_what_the_file_says(trained: nn.Module, digits: Dataset, tmp_path: Path) -> None:
    from compress.networks.onnx_export import folded_weights

    workload = SMALL.workload()
    path = tmp_path / "teacher.onnx"
    metadata = {METADATA_KEY: digits.preprocessing.to_json()}
    path.write_bytes(write_onnx(workload, folded_weights(trained, workload), metadata=metadata))
    teacher = OnnxTeacher(path, digits)
    assert teacher_accuracy(teacher, digits.val) == evaluate(trained, digits.val, digits.preprocessing)
    assert teacher_accuracy(pickle.loads(pickle.dumps(teacher)), digits.val) == teacher_accuracy(teacher, digits.val)
    larger = torch.rand(2, 1, 40, 40)
    assert teacher(larger).shape == (2, 10)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_teacher_made_for_a_number_of_images_is_asked_in_such_parts(
    batch: int, trained: nn.Module, digits: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "teacher.onnx"
    torch.onnx.export(trained.eval(), (torch.zeros(batch, 1, 16, 16),), path, dynamo=False)
    pixels = torch.rand(7, 1, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(OnnxTeacher(path, digits)(pixels), trained(pixels), atol=1e-4, rtol=1e-4)


def test_a_teacher_for_other_data_is_refused(digits: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    path.write_bytes(write_onnx(preset("resnet8").workload()))
    with pytest.raises(ValueError, match="must read 1 channels and output 10 classes, got 3 and 10"):
        OnnxTeacher(path, digits)


def test_a_teacher_of_timm_is_trained_once(digits: Dataset, tmp_path: Path) -> None:
    recipe = Recipe(epochs=0.2, bfloat16=False)
    before = torch.get_rng_state()
    teacher = trained_teacher("test_resnet", digits, recipe, tmp_path / "t")
    assert torch.equal(torch.get_rng_state(), before)
    weights = (tmp_path / "t" / "weights.safetensors").stat().st_mtime_ns
    again = trained_teacher("test_resnet", digits, recipe, tmp_path / "t")
    assert (tmp_path / "t" / "weights.safetensors").stat().st_mtime_ns == weights
    pixels = torch.rand(4, 1, 32, 32)
    first: Tensor = teacher(pixels)
    torch.testing.assert_close(again(pixels), first)
    with pytest.raises(ValueError, match="did you mean 'resnet10t'"):
        check_timm_name("resnet10tt")


def test_a_teacher_goes_where_the_images_are(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *args, **how: nullcontext())  # it knows no tensors without numbers
    teacher = ModuleTeacher(build_model(SMALL), digits.preprocessing, bfloat16=False)
    assert teacher(torch.zeros(2, 1, 16, 16)).device.type == "cpu"
    assert teacher(torch.zeros(2, 1, 16, 16, device="meta")).device.type == "meta"
