"""The ways of distilling: each learns, follows what it compares, and refuses what it cannot use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress import Artifact, Context, Distill, Recipe
from compress.distillation.distill import METHODS
from compress.distillation.ensemble import Ensemble
from compress.distillation.feature_maps import Taps
from compress.distillation.losses import attention_distance
from compress.training.evaluation import evaluate
from compress.training.teachers import ModuleTeacher
from hw_profiles.network.quantization import Quantization
from hw_profiles.network.tensor_formats import TensorFormat
from search_spaces import build_model, preset
from tests.parameters import quick

SHAPE = (1, 16, 16)


def untrained(context: Context, seed: int = 1) -> Artifact:
    arch = preset("resnet8", input_shape=SHAPE)
    empty = Artifact(source=arch, weights={}, preprocessing=context.data.preprocessing)
    return empty.with_model(build_model(arch, seed=seed))


@pytest.fixture(scope="module")
def teacher(learnt: Artifact) -> ModuleTeacher:
    return ModuleTeacher(learnt.model(), learnt.preprocessing)


def validation(artifact: Artifact, context: Context) -> float:
    return evaluate(artifact.model(), context.data.val, artifact.preprocessing)


def pixels(context: Context, count: int = 64) -> Tensor:
    return torch.from_numpy(context.data.val.images[:count].transpose(0, 3, 1, 2).astype(np.float32) / 255)


@pytest.mark.parametrize("method", quick(METHODS, ("soft_targets",)))
def test_every_method_learns_and_leaves_the_teacher_alone(
    method: str, context: Context, learnt: Artifact, teacher: ModuleTeacher
) -> None:
    start = learnt if method == "self" else untrained(context)
    before = {key: value.clone() for key, value in teacher.model.state_dict().items()}
    stage = Distill(method=method, recipe=Recipe(epochs=3, learning_rate=0.1))
    after = stage(start, replace(context, teacher=None if method == "self" else teacher))
    assert validation(after, context) > 0.5  # by chance it is 0.1
    assert after.source == start.source
    assert set(after.weights) == set(start.weights)
    assert all(torch.equal(before[key], value) for key, value in teacher.model.state_dict().items())
    assert not any(module._forward_hooks for module in teacher.model.modules())


def test_born_again_networks_begin_anew(context: Context, learnt: Artifact) -> None:
    after = Distill(method="self", recipe=Recipe(epochs=0.05, learning_rate=1e-6))(learnt, context)
    assert validation(after, context) < 0.5 < validation(learnt, context)
    key = "stages.0.0.conv1.conv.weight"
    cosine = torch.cosine_similarity(after.weights[key].flatten(), learnt.weights[key].flatten(), dim=0)
    assert abs(float(cosine)) < 0.2


@pytest.mark.slow
def test_attention_follows_the_teacher_where_it_is_weighed(context: Context, teacher: ModuleTeacher) -> None:
    distances = {}
    for weight in (0.0, 1000.0):
        stage = Distill(method="attention", weight=0.0, feature_weight=weight, recipe=Recipe(epochs=1.5))
        model = stage(untrained(context), replace(context, teacher=teacher)).model()
        x = (pixels(context) - teacher.mean) / teacher.std
        with torch.no_grad(), Taps(model, ["stages.0", "stages.1"]) as seen, Taps(teacher.model, ["stages.1"]) as shown:
            model(x), teacher.model(x)
            distances[weight] = float(attention_distance(seen.features()[1], shown.features()[0]))
    assert distances[1000.0] < 0.7 * distances[0.0]


def unexplained(student: NDArray[np.float32], teacher: NDArray[np.float32]) -> float:
    """The share of the teacher's features that no linear map of the student's makes."""
    x = np.column_stack([np.moveaxis(student, 1, 3).reshape(-1, student.shape[1]), np.ones(student[:, 0].size)])
    y = np.moveaxis(teacher, 1, 3).reshape(-1, teacher.shape[1])
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float((residual**2).sum() / ((y - y.mean(0)) ** 2).sum())


@pytest.mark.slow
def test_hints_make_the_students_features_tell_the_teachers(context: Context, teacher: ModuleTeacher) -> None:
    left = {}
    for weight in (0.0, 100.0):
        stage = Distill(
            method="hints", weight=0.0, feature_weight=weight, layers=("stages.0",), teacher_layers=("stages.1",),
            recipe=Recipe(epochs=3),
        )  # fmt: skip
        model = stage(untrained(context), replace(context, teacher=teacher)).model()
        x = (pixels(context) - teacher.mean) / teacher.std
        with torch.no_grad(), Taps(model, ["stages.0"]) as seen, Taps(teacher.model, ["stages.1"]) as shown:
            model(x), teacher.model(x)
            own, hint = seen.features()[0], shown.features()[0]
            left[weight] = unexplained(nn.functional.avg_pool2d(own, 2).numpy(), hint.numpy())
    assert left[100.0] < 0.95 * left[0.0]


def test_an_interrupted_training_with_regressors_is_found_again(
    context: Context, teacher: ModuleTeacher, tmp_path: Path
) -> None:
    stage = Distill(method="hints", recipe=Recipe(epochs=0.3))
    taught = replace(context, teacher=teacher, checkpoint=tmp_path / "checkpoint.pt")
    first = stage(untrained(context), taught)
    again = stage(untrained(context), taught)
    assert all(torch.equal(again.weights[key], value) for key, value in first.weights.items())


def test_a_student_of_several_teachers_says_their_weighted_mean(context: Context) -> None:
    def says(number: int) -> ModuleTeacher:
        def teacher(seen: Tensor) -> Tensor:
            return nn.functional.one_hot(torch.full((len(seen),), number), 10) * 8.0

        return teacher  # type: ignore[return-value]

    taught = replace(context, teacher=Ensemble([says(3), says(7)], [3, 1]))
    stage = Distill(weight=1.0, temperature=1.0, recipe=Recipe(epochs=2))
    model = stage(untrained(context), taught).model()
    x = torch.from_numpy(context.data.preprocessing.tensor(context.data.val.images))
    with torch.no_grad():
        said = model(x).softmax(1).mean(0)
    assert float(said[3]) == pytest.approx(0.75, abs=0.05)
    assert float(said[7]) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("method", ["hints", "attention"])
def test_a_teacher_without_feature_maps_is_refused(method: str, context: Context, learnt: Artifact) -> None:
    def opaque(seen: Tensor) -> Tensor:
        return torch.zeros(len(seen), 10)

    with pytest.raises(ValueError, match="needs one teacher that is a module, got function"):
        Distill(method=method)(learnt, replace(context, teacher=opaque))
    flat = ModuleTeacher(nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), learnt.preprocessing)
    with pytest.raises(ValueError, match="the teacher has none"):
        Distill(method=method)(learnt, replace(context, teacher=flat))
    named = Distill(method=method, layers=("stages.0",), teacher_layers=("nowhere",))
    with pytest.raises(ValueError, match="must be a module of Sequential, got 'nowhere'"):
        named(learnt, replace(context, teacher=flat))


def test_what_later_stages_did_is_not_undone(context: Context, learnt: Artifact, teacher: ModuleTeacher) -> None:
    quantized = replace(learnt, quantization=Quantization(activations={}))
    clustered = replace(learnt, weight_formats={"stem.weight": TensorFormat(codebook=16)})
    for artifact in (quantized, clustered):
        with pytest.raises(ValueError, match="Distill must come before the stages that change how weights are stored"):
            Distill()(artifact, replace(context, teacher=teacher))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "hint"}, "method must be one of soft_targets, decoupled, hints, attention, self, got 'hint'"),
        ({"others_weight": -1.0}, "must be at least 0"),
        ({"feature_weight": False}, "must be at least 0"),
        ({"layers": ("a",)}, "must be pairs, got 1 and 0"),
    ],
)
def test_impossible_lessons_are_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Distill(**fields)
    with pytest.raises(ValueError, match="must be 1 numbers above 0"):
        Ensemble([torch.nn.Identity()], [0.0])
    with pytest.raises(ValueError, match=r"must be 1 numbers above 0, got \(inf,\)"):
        Ensemble([torch.nn.Identity()], [torch.inf])
