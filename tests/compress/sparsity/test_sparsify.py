"""Sparse networks: how many zeros, where, and that they are deployed."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from compress import Artifact, Context, Recipe
from compress.networks.onnx_export import export_onnx, folded_weights, predict_onnx
from compress.networks.weight_layers import layers_of, weighted_layers
from compress.sparsity.sparsify import Sparsify, densities
from compress.training import loop
from compress.training.evaluation import accuracy, evaluate
from search_spaces import build_model, preset
from tests.compress.stages_of_modules import sparsify_module
from tests.contracts import with_random_statistics

SHORT = Recipe(epochs=1.5, learning_rate=0.02)


def zeros(path: Path) -> dict[str, np.ndarray]:
    """Where the weights of a file are zero, none of them minus zero."""
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if t.name.endswith("weight")}
    assert not any(np.signbit(value[value == 0]).any() for value in tensors.values())
    return {name: value == 0 for name, value in tensors.items()}


def share(found: dict[str, np.ndarray]) -> float:
    return float(np.mean(np.concatenate([each.ravel() for each in found.values()])))


@pytest.mark.parametrize("criterion", ["magnitude", "movement"])
def test_the_zeros_are_in_the_file_and_the_network_still_works(
    criterion: str, learnt: Artifact, context: Context, tmp_path: Path
) -> None:
    stage = Sparsify(amount=0.7, criterion=criterion, recipe=SHORT)
    after = stage(learnt, context)
    export_onnx(after, tmp_path / "m.onnx")
    found = zeros(tmp_path / "m.onnx")
    assert share(found) == pytest.approx(0.7, abs=1e-4)
    for name, zero in found.items():
        assert after.weight_formats[name].density == pytest.approx(1 - zero.mean())
        assert after.metrics["densities"][name.removesuffix(".weight")] == pytest.approx(1 - zero.mean())
    at_once = learnt.model()
    sparsify_module(at_once, 0.7)
    right = accuracy(predict_onnx(tmp_path / "m.onnx", context.data.val, learnt.preprocessing), context.data.val)
    assert right > evaluate(at_once, context.data.val, learnt.preprocessing) + 0.2


@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
def test_patterns_are_in_the_file(pattern: str, learnt: Artifact, context: Context, tmp_path: Path) -> None:
    stay, group = map(int, pattern.split(":"))
    after = Sparsify(pattern=pattern, recipe=replace(SHORT, epochs=0.3))(learnt, context)
    export_onnx(after, tmp_path / "m.onnx")
    for name, zero in zeros(tmp_path / "m.onnx").items():
        if zero.shape[1] % group:
            assert name == "stem.weight"
            assert not zero.any()
        else:
            grouped = np.moveaxis(zero, 1, -1).reshape(-1, group)
            assert (grouped.sum(axis=1) == group - stay).all()


def test_amounts_are_each_layers_own() -> None:
    model = build_model(preset("resnet8"))
    found = sparsify_module(model, {"conv": 0.5, "stages.0.0.conv1.conv": 0.9})
    assert found.pop("stages.0.0.conv1.conv") == pytest.approx(0.1, abs=1e-3)
    assert found.pop("classifier") == 1
    assert list(found.values()) == pytest.approx([0.5] * len(found), abs=1e-2)
    layerwise = build_model(preset("resnet8"))
    alike = list(sparsify_module(layerwise, 0.8, scope="layer").values())
    assert alike == pytest.approx([0.2] * len(alike), abs=2e-2)


def test_weights_leave_gradually_and_never_return(learnt: Artifact) -> None:
    model = learnt.model()
    seen: list[float] = []
    held: list[torch.Tensor] = []

    def learn(module: nn.Module, before_step: object) -> None:
        for step in range(100):
            before_step(step / 100)
            weights = torch.cat([layer.weight.detach().flatten() for layer in weighted_layers(module).values()])
            seen.append(float((weights == 0).double().mean()))
            held.append(weights == 0)

    Sparsify(amount=0.9).apply(model, weighted_layers(model), learn)
    assert seen[0] == 0
    assert all(later >= earlier for earlier, later in itertools.pairwise(seen))
    assert seen[30] == pytest.approx(0.9 * (1 - 0.5**3), abs=1e-3)
    assert seen[60:] == pytest.approx([0.9] * 40, abs=1e-4)
    assert all(torch.equal(held[60], each) for each in held[60:])


def test_a_training_too_short_for_the_schedule_still_ends_as_wanted(learnt: Artifact) -> None:
    model = learnt.model()
    Sparsify(amount=0.9).apply(model, weighted_layers(model), lambda module, before_step: before_step(0.0))
    sizes = [layer.weight.numel() for layer in weighted_layers(model).values()]
    assert np.average(list(densities(weighted_layers(model)).values()), weights=sizes) == pytest.approx(0.1, abs=1e-3)


def test_rewinding_gives_back_the_weights_that_stay(learnt: Artifact) -> None:
    def learn(module: nn.Module, before_step: object) -> None:
        before_step(0.0)
        starts.append([layer.weight.detach().clone() for layer in weighted_layers(module).values()])
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(starts))))

    given = [layer.weight for layer in weighted_layers(learnt.model()).values()]
    starts: list[list[torch.Tensor]] = []
    for rewind in (True, False):
        starts.clear()
        model = learnt.model()
        Sparsify(amount=0.8, schedule="iterative", rounds=2, rewind=rewind).apply(model, weighted_layers(model), learn)
        for number, wanted in ((0, 0.8 * (1 - 0.5**3)), (1, 0.8)):
            flat = torch.cat([weight.flatten() for weight in starts[number]])
            assert float((flat == 0).double().mean()) == pytest.approx(wanted, abs=1e-3)
            same = [torch.equal(w[w != 0], g[w != 0]) for w, g in zip(starts[number], given, strict=True)]
            assert all(same) == (rewind or number == 0)


def test_a_sensitive_layer_keeps_more(learnt: Artifact, context: Context) -> None:
    found = {}
    few = replace(context.data, val=context.data.val.spread(72))
    for scope in ("sensitivity", "layer"):
        model = learnt.model()
        recipe = Recipe(epochs=0.02)
        found[scope] = (sparsify_module(model, 0.5, scope=scope, data=few, recipe=recipe), model)
    amounts, _ = found["sensitivity"]
    sizes = {name: layer.weight.numel() for name, layer in weighted_layers(learnt.model()).items()}
    assert sum(amounts[n] * sizes[n] for n in sizes) / sum(sizes.values()) == pytest.approx(0.5, abs=1e-3)
    assert max(amounts.values()) > 1.5 * min(amounts.values())
    losses = {scope: _loss(model, context) for scope, (_, model) in found.items()}
    assert losses["sensitivity"] < 0.8 * losses["layer"]


def _loss(model: nn.Module, context: Context) -> float:
    val = context.data.val
    with torch.no_grad():
        logits = model(torch.from_numpy(context.data.preprocessing.tensor(val.images)))
    return float(F.cross_entropy(logits, torch.from_numpy(val.labels)))


def test_an_interrupted_training_ends_with_the_same_zeros(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    stage = Sparsify(amount=0.8, criterion="movement", recipe=Recipe(epochs=1, batch_size=64))
    whole = stage(learnt, context)
    kept = tmp_path / "checkpoint.pt"

    class KilledError(Exception):
        pass

    def killed(share: float, note: str) -> None:
        if share > 0.5:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(KilledError):
            stage(learnt, replace(context, checkpoint=kept, report=killed))
    again = stage(learnt, replace(context, checkpoint=kept))
    assert all(torch.equal(value, again.weights[name]) for name, value in whole.weights.items())


def test_foreign_modules_are_made_sparse_in_place() -> None:
    import timm

    model = with_random_statistics(timm.create_model("mobilenetv3_small_050", num_classes=5))
    kinds = {name: type(module) for name, module in model.named_modules()}
    keys = set(model.state_dict())
    found = sparsify_module(model, 0.9)
    assert set(model.state_dict()) == keys
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    sizes = {name: layer.weight.numel() for name, layer in weighted_layers(model).items()}
    assert sum(found[name] * sizes[name] for name in sizes) / sum(sizes.values()) == pytest.approx(0.1, abs=1e-3)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_zeros_stay_when_other_stages_train_on_the_folded_weights(learnt: Artifact, context: Context) -> None:
    after = Sparsify(amount=0.6, recipe=None, schedule="iterative")(learnt, context)
    weights = folded_weights(after.model(), after.source.workload())
    names = {f"{name}.weight": layer for name, layer in layers_of(after, after.model()).items()}
    assert all(((weights[name] == 0) == (layer.weight == 0).numpy()).all() for name, layer in names.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"amount": 1.0}, "amount must be between 0 and 1, got 1.0"),
        ({"amount": 0}, "amount must be between 0 and 1, got 0"),
        ({"amount": {"conv": 1.5}}, "amount must be between 0 and 1, got 1.5"),
        ({"amount": float("nan")}, "amount must be between 0 and 1, got nan"),
        ({"criterion": "magnitud"}, "criterion must be one of magnitude, movement.*did you mean 'magnitude'"),
        ({"pattern": "4:4"}, "pattern must be one of '', 2:4, 4:8, got '4:4'"),
        ({"scope": "all"}, "scope must be one of"),
        ({"schedule": "gradual", "rounds": 3}, "rounds and rewind require schedule='iterative'"),
        ({"schedule": "iterative", "rounds": 0}, "rounds must be at least 1"),
        ({"criterion": "movement", "recipe": None}, "requires training: schedule='gradual' and a recipe"),
        ({"scope": "sensitivity", "amount": {"conv": 0.5}}, "amount must be one number"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Sparsify(**options)


def test_networks_that_it_does_not_fit_are_refused(learnt: Artifact, context: Context) -> None:
    narrow = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6, 2))
    with pytest.raises(
        ValueError, match="pattern 2:4: the inputs of at least one layer must be a multiple of 4, got 0 3, 2 6"
    ):
        sparsify_module(narrow, pattern="2:4")
    with pytest.raises(
        ValueError, match=r"Sparsify\.amount: a key must be conv, linear or the name of a layer, got 'liner'"
    ):
        sparsify_module(narrow, {"liner": 0.5})
    with pytest.raises(ValueError, match="a model must have convolutions or linear layers"):
        sparsify_module(nn.ReLU())
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="0 and 1 share one"):
        sparsify_module(tied)
    with pytest.raises(ValueError, match="scope='sensitivity' requires validation images, but none were given"):
        sparsify_module(copy.deepcopy(narrow), scope="sensitivity")
    shared = replace(learnt, weight_formats={"stem.weight": replace(learnt.source.workload().format("x"), codebook=4)})
    with pytest.raises(ValueError, match="must come before they are made integers or shared"):
        Sparsify()(shared, context)
