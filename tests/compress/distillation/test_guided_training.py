"""Who leads a training: one teacher, several, what a network was, or nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import compress
from compress import Artifact, Cluster, Context, Distill, Ensemble, Prune, Recipe, Sparsify
from compress.distillation import distill, guided_training
from compress.distillation.feature_distillation import FeatureDistillation
from compress.distillation.feature_maps import Taps
from compress.distillation.losses import decoupled_divergences
from compress.training.loop import Training
from compress.training.teachers import ModuleTeacher
from tests.compress.model_kinds import ARCH, BLINK, of_timm, small


@pytest.mark.parametrize("way", ["prune", "sparsify", "cluster"])
def test_a_network_that_knows_nothing_leads_nobody(
    way: str, learnt: Artifact, context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its outputs, taken for the truth, would keep what becomes of it from learning."""
    led = []
    monkeypatch.setattr(guided_training, "soft_target_loss", lambda teacher, **how: led.append(teacher))
    few = replace(context.data, train=context.data.train.some(200, 0))
    calls = {
        "prune": lambda model: compress.prune(model, few, Prune(recipe=BLINK), amount=0.4),
        "sparsify": lambda model: compress.sparsify(model, context.data, Sparsify(recipe=BLINK)),
        "cluster": lambda model: compress.cluster(model, context.data, Cluster(recipe=BLINK)),
    }
    calls[way](ARCH)
    assert not led
    assert "trained without a teacher" in caplog.text
    caplog.clear()
    calls[way](learnt)
    assert len(led) == 1
    assert not caplog.text


def test_several_teachers_of_any_kind_lead_as_one(context: Context) -> None:
    def says(number: int) -> Any:
        return lambda pixels: nn.functional.one_hot(torch.full((len(pixels),), number), 10) * 20.0

    config = Distill(recipe=Recipe(epochs=0.1), weight=1.0)
    one = compress.distill(ARCH, context.data, config, teacher=Ensemble([says(3), says(7)]))
    both = compress.distill(ARCH, context.data, config, teacher=[says(3), says(7)])
    first = compress.distill(ARCH, context.data, config, teacher=says(3))
    same = [torch.equal(value, both.weights[name]) for name, value in one.weights.items()]
    assert all(same)
    assert not all(torch.equal(value, both.weights[name]) for name, value in first.weights.items())


def test_self_distillation_needs_no_teacher(learnt: Artifact, context: Context) -> None:
    after = compress.distill(learnt, context.data, Distill(method="self", recipe=BLINK))
    assert after.source == learnt.source
    with pytest.raises(ValueError, match="Distill needs a teacher"):
        compress.distill(learnt, context.data, Distill(recipe=BLINK))


def test_a_module_is_born_again(context: Context) -> None:
    module = small()
    begun = compress.distill(
        module, context.data, Distill(method="self", recipe=Recipe(epochs=0.01, learning_rate=1e-9))
    )
    for name in ("0.weight", "3.weight", "7.weight"):
        cosine = torch.cosine_similarity(begun.weights[name].flatten(), module.state_dict()[name].flatten(), dim=0)
        assert abs(float(cosine)) < 0.5
    with pytest.raises(ValueError, match="re-initializes the weights, which VisionTransformer does not support"):
        compress.distill(of_timm(), context.data, Distill(method="self", recipe=BLINK))


def test_frozen_layers_are_not_born_again(context: Context) -> None:
    module = small()
    module[3].requires_grad_(False)
    begun = compress.distill(module, context.data, Distill(method="self", recipe=BLINK))
    assert torch.equal(begun.weights["3.weight"], module.state_dict()["3.weight"])
    assert not torch.equal(begun.weights["7.weight"], module.state_dict()["7.weight"])


def test_decoupled_parts_are_weighed_each_by_its_own(
    learnt: Artifact, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def train(model: nn.Module, data: Any, recipe: Recipe, *, loss: Any, **how: Any) -> Training:
        told.append(loss)
        return Training(steps=0, epochs=0.0, seconds=0.0, images_per_second=0.0, bfloat16=False)

    monkeypatch.setattr(distill, "train", train)
    generator = torch.Generator().manual_seed(0)
    student, taught = (torch.randn(6, 10, generator=generator) for _ in range(2))
    labels, pixels = torch.arange(6), torch.zeros(6, 1, 16, 16)
    stage = Distill(method="decoupled", target_weight=2.0, others_weight=5.0, weight=0.25, temperature=3.0)
    stage(learnt, replace(context, teacher=lambda pixels: taught))
    target, others = decoupled_divergences(student, taught, labels, 3.0)
    assert float(target) != pytest.approx(float(others), rel=0.1)
    expected = 0.25 * (2 * target + 5 * others) + 0.75 * nn.functional.cross_entropy(student, labels)
    torch.testing.assert_close(told[0](student, labels, pixels), expected)


@pytest.mark.parametrize(("method", "sides"), [("hints", [8]), ("attention", [16, 8, 4])])
def test_without_a_wish_the_middle_of_the_network_is_hinted_at_and_all_of_it_attended_to(
    method: str, sides: list[int], learnt: Artifact
) -> None:
    model = learnt.model()
    teacher = ModuleTeacher(learnt.model(), learnt.preprocessing)
    feature_distillation = FeatureDistillation.of(Distill(method=method), model, teacher, (1, 16, 16), 0)
    for network, names in ((model, feature_distillation.layers), (teacher.model, feature_distillation.teacher_layers)):
        with torch.no_grad(), Taps(network, names) as taps:
            network(torch.zeros(1, 1, 16, 16))
            assert [features.shape[-1] for features in taps.features()] == sides
