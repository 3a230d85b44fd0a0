"""Real trainings in processes of their own: the same numbers as here, and a crash of native code survived."""

from __future__ import annotations

import os
import warnings
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocks.spec import BlockSpec
from compress.data.dataset import Dataset
from compress.data.in_memory import arrays_dataset
from compress.distillation.distill import Distill
from compress.networks.artifact import Artifact
from compress.pruning.prune import Prune
from compress.stage_interface import Context
from compress.stages.runner import run_stages
from compress.training import loop
from compress.training.loop import Recipe
from compress.training.teachers import ModuleTeacher
from hw_profiles.devices.device_file import load_device
from hw_profiles.errors import InputError
from nas.engine.candidate_evaluation import ShortTraining
from nas.execution.executor import EvaluationError
from nas.execution.long_trainings import shielded_stages, shielded_teacher, trained_network
from nas.execution.worker_processes import WorkerProcesses
from search_spaces.arch import Arch

pytestmark = pytest.mark.slow
SHORT = Recipe(epochs=0.2, learning_rate=0.05)


def images(count: int, side: int, channels: int = 3) -> Dataset:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (count, side, side, channels), dtype=np.uint8)
    return arrays_dataset(pixels, np.arange(count) % 2)


def conv(in_channels: int, out_channels: int, **options: Any) -> BlockSpec:
    return BlockSpec(kind="conv", in_channels=in_channels, out_channels=out_channels, **options)


def network(side: int) -> Arch:
    """With a convolution of 1×1, stride 2 and 8 channels, whose backward of torch 2.14 crashes on CPUs with AVX-512 where
    the image has 64 pixels or more a side."""
    shrinking = conv(8, 16, kernel_size=1, stride=2)
    return Arch(input_shape=(3, side, side), stem=conv(3, 8), stages=((shrinking,),), head=None, num_classes=2)


def test_a_training_whose_kernels_crash_goes_well_by_the_others() -> None:
    evaluate = ShortTraining(images(150, 72), SHORT, seed=0)
    with closing(WorkerProcesses(evaluate)) as executor:
        error = executor.submit(network(72), 1.0).exception()
        if error is not None:  # on a CPU whose kernels do not crash there is none
            assert isinstance(error, EvaluationError)
            assert "was killed by signal" in str(error)  # it writes past the end: a fault, or malloc finds it later
            assert error.retry_may_help
        assert 0 <= executor.submit(network(72), 1.0, alternative=True).result().accuracy <= 1


def test_a_long_training_whose_kernels_crash_goes_well_by_the_others(tmp_path: Path) -> None:
    context = Context(data=images(150, 72), device=load_device("host"), measured=False)
    found = trained_network(network(72), context, SHORT, tmp_path / "winner", what="the training of the winner")
    assert found.metrics["training"]["steps"] >= 1
    assert (tmp_path / "winner" / found.files["onnx"]).is_file()


def test_a_training_on_mapped_images_is_the_same_and_warns_of_nothing() -> None:
    data = images(6000, 16)
    assert data.train.images.nbytes > 1 << 20
    evaluate = ShortTraining(data, replace(SHORT, epochs=0.05), seed=0)
    arch = network(16)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with closing(WorkerProcesses(evaluate, threads=torch.get_num_threads())) as executor:
            assert len(list(executor._pool.target.folder.glob("*.npy"))) >= 1
            assert executor.submit(arch, 1.0).result() == evaluate(arch, 1.0)


class CrashesInTheUsualFormat:
    """A teacher that kills its process where it is asked in channels_last."""

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        if not pixels.is_contiguous():
            os.abort()
        return torch.zeros(len(pixels), 2)


def test_stages_give_the_same_in_a_process_of_their_own(tmp_path: Path) -> None:
    data = images(200, 16)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2))
    teacher = ModuleTeacher(model, data.preprocessing)
    context = Context(data=data, device=load_device("host"), measured=False, teacher=teacher, max_accuracy_drop=100.0)
    home = tmp_path / "winner"
    winner = trained_network(network(16), context, SHORT, home, what="the training of the winner")
    stages = [Distill(recipe=SHORT), Prune(amount=0.3, recipe=SHORT)]
    told: list[str] = []

    def show(label: str) -> Any:
        from compress.progress import progress

        told.append(label)
        return progress(label)

    here = run_stages(winner, stages, context, tmp_path / "here", home=home)
    there = shielded_stages(winner, stages, context, tmp_path / "there", home=home, what="the stages", show=show)
    assert told == ["distill", "prune"]
    assert there.arch == here.arch
    for name, value in here.weights.items():
        torch.testing.assert_close(there.weights[name], value, atol=0, rtol=0)
    assert Artifact.load(tmp_path / "there" / "02_prune").arch == Artifact.load(tmp_path / "here" / "02_prune").arch


def test_a_stage_that_crashes_goes_well_by_other_kernels(tmp_path: Path) -> None:
    context = Context(
        data=images(200, 16), device=load_device("host"), measured=False, teacher=CrashesInTheUsualFormat()
    )
    home = tmp_path / "winner"
    winner = trained_network(network(16), context, SHORT, home, what="the training of the winner")
    found = shielded_stages(
        winner, [Distill(recipe=SHORT)], context, tmp_path / "stages", home=home, what="the stages of the winner"
    )
    assert [record["stage"] for record in found.history] == ["distill"]
    assert (tmp_path / "stages-crash.json").is_file()


def test_a_teacher_is_trained_in_a_process_of_its_own(tmp_path: Path) -> None:
    data = images(100, 16)
    teacher = shielded_teacher("test_resnet", data, SHORT, tmp_path / "teacher")
    assert teacher(torch.zeros(2, 3, 16, 16)).shape == (2, 2)
    assert (tmp_path / "teacher" / "weights.safetensors").is_file()


def test_a_checkpoint_of_the_usual_kernels_is_continued_by_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search_spaces.model import build_model

    class StoppedError(Exception):
        pass

    def stop(share: float, note: str) -> None:
        if share > 0.5:
            raise StoppedError

    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    data, checkpoint = images(300, 16), tmp_path / "checkpoint.pt"
    usual = Recipe(epochs=1, bfloat16=True)
    with pytest.raises(StoppedError):
        loop.train(build_model(network(16)), data, usual, checkpoint=checkpoint, report=stop)
    model = build_model(network(16))
    assert not loop.train(model, data, usual.alternative, checkpoint=checkpoint).bfloat16
    assert all(p.is_contiguous() for p in model.parameters())


def test_a_training_that_diverges_is_told_by_the_process_of_its_own(tmp_path: Path) -> None:
    context = Context(data=images(300, 16), device=load_device("host"), measured=False)
    with pytest.raises(InputError, match=r"^the training diverged.*use a lower learning rate"):
        trained_network(network(16), context, Recipe(epochs=4, learning_rate=1e30), tmp_path / "winner", what="it")
