"""Shared weights: how many values, which, and that they are deployed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from sklearn.cluster import KMeans
from torch import nn

from compress import Artifact, Context, Recipe
from compress.clustering import cluster
from compress.clustering.cluster import Cluster
from compress.clustering.kmeans_1d import STARTS
from compress.clustering.shared_weights import apply_weight_sharing
from compress.networks.onnx_export import export_onnx, folded_weights, predict_onnx
from compress.networks.weight_layers import weighted_layers
from compress.quantization.int8.ptq import Quantize
from compress.sparsity.sparsify import Sparsify
from compress.training.evaluation import accuracy
from tests.compress.stages_of_modules import cluster_module
from tests.contracts import with_random_statistics

SHORT = Recipe(epochs=1, learning_rate=0.01)


def stored(path: Path, suffix: str = ".weight") -> dict[str, np.ndarray]:
    """The weights of a file."""
    return {
        t.name.removesuffix(suffix): numpy_helper.to_array(t)
        for t in onnx.load(path).graph.initializer
        if t.name.endswith(suffix)
    }


def right(path: Path, context: Context) -> float:
    return accuracy(predict_onnx(path, context.data.val, context.data.preprocessing), context.data.val)


def test_the_values_are_in_the_file_and_training_helps(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    stage = Cluster(clusters={"conv": 4, "classifier": 3}, recipe=Recipe(epochs=2, learning_rate=0.05))
    found = {}
    for name, each in {"trained": stage, "at once": replace(stage, recipe=None)}.items():
        after = each(learnt, context)
        export_onnx(after, tmp_path / "m.onnx")
        found[name] = right(tmp_path / "m.onnx", context)
        for op, weight in stored(tmp_path / "m.onnx").items():
            assert len(np.unique(weight)) == (3 if op == "classifier" else 4)
            assert after.weight_formats[f"{op}.weight"].codebook == len(np.unique(weight))
            assert after.weight_formats[f"{op}.weight"].bits == math.ceil(math.log2(len(np.unique(weight))))
            assert after.metrics["codebooks"][op] == len(np.unique(weight))
    assert found["trained"] > found["at once"] + 0.1


def test_zeros_are_a_value_of_their_own(learnt: Artifact, context: Context, tmp_path: Path) -> None:
    sparse = Sparsify(amount=0.7, recipe=SHORT)(learnt, context)
    after = Cluster(bits=3, recipe=replace(SHORT, epochs=0.3))(sparse, context)
    export_onnx(sparse, tmp_path / "sparse.onnx")
    export_onnx(after, tmp_path / "m.onnx")
    before = stored(tmp_path / "sparse.onnx")
    for op, weight in stored(tmp_path / "m.onnx").items():
        assert np.array_equal(weight == 0, before[op] == 0)
        assert not np.signbit(weight[weight == 0]).any()
        assert len(np.unique(weight)) == 8 + (weight == 0).any()
        assert after.weight_formats[f"{op}.weight"].density == pytest.approx(np.mean(weight != 0))


def test_one_shot_values_are_those_of_scikit_learn_on_the_folded_weights(learnt: Artifact, context: Context) -> None:
    after = Cluster(clusters=4, start="linear", recipe=None)(learnt, context)
    workload = learnt.source.workload()
    before, shared = (folded_weights(each.model(), workload) for each in (learnt, after))
    for op in workload.ops:
        if op.weight in before:
            values = before[op.weight].reshape(-1, 1).astype(np.float64)
            first = np.linspace(values.min(), values.max(), 4)[:, None]
            reference = KMeans(4, init=first, n_init=1, max_iter=300, tol=0).fit(values)
            if np.bincount(reference.labels_, minlength=4).min():
                expected = reference.cluster_centers_[reference.labels_, 0].reshape(before[op.weight].shape)
                differs = ~np.isclose(shared[op.weight], expected, atol=1e-4)
                assert differs.mean() < 1e-3


@pytest.mark.parametrize("sparse", [False, True])
def test_integers_share_integers(sparse: bool, learnt: Artifact, context: Context, tmp_path: Path) -> None:
    start = Sparsify(amount=0.6, recipe=SHORT)(learnt, context) if sparse else learnt
    integers = Quantize(calibration="minmax", images=64)(start, context)
    after = Cluster(clusters=12, recipe=replace(SHORT, epochs=0.5))(integers, context)
    for name, artifact in {"before": integers, "after": after}.items():
        export_onnx(artifact, tmp_path / f"{name}.onnx")
    before = stored(tmp_path / "before.onnx", ".weight.quantized")
    for op, weight in stored(tmp_path / "after.onnx", ".weight.quantized").items():
        assert weight.dtype == np.int8
        assert len(np.unique(weight[weight != 0])) <= 12 < len(np.unique(before[op]))
        assert np.array_equal(weight == 0, before[op] == 0)
        assert after.weight_formats[f"{op}.weight"].codebook == len(np.unique(weight[weight != 0]))
    assert right(tmp_path / "after.onnx", context) > right(tmp_path / "before.onnx", context) - 0.3


@pytest.mark.parametrize("steps", [None, np.float32([0.1, 0.2, 0.4, 0.3])])
def test_the_gradient_of_a_value_is_the_sum_over_its_cluster(steps: np.ndarray | None) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(30, 4)
    with torch.no_grad():
        layer.weight[0, :7] = 0
        if steps is not None:
            layer.weight.copy_((layer.weight * 100).round() * torch.from_numpy(steps)[:, None])
    shared = apply_weight_sharing(layer, 5, "linear", 0, steps)
    weight = layer.weight.detach().clone().requires_grad_()
    x = torch.randn(8, 30)
    torch.tanh(x @ weight.T + layer.bias).square().sum().backward()
    torch.tanh(layer(x)).square().sum().backward()
    scale = torch.ones(4, 1) if steps is None else torch.from_numpy(steps)[:, None]
    sums = [float((weight.grad * scale)[shared.labels == label].sum()) for label in range(1, 6)]
    values = layer.parametrizations.weight.original
    np.testing.assert_allclose(values.grad.numpy() * shared.roots.numpy(), sums, rtol=1e-4)


def test_an_ordinary_step_moves_a_value_by_the_mean_of_its_weights_steps() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(40, 3)
    shared = apply_weight_sharing(layer, 4, "density", 0)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    free = before.clone().requires_grad_()
    x = torch.randn(6, 40)
    (x @ free.T + layer.bias).square().sum().backward()
    layer(x).square().sum().backward()
    optimizer.step()
    for label in range(1, 5):
        inside = shared.labels == label
        moved = (layer.weight.detach() - before)[inside]
        torch.testing.assert_close(moved, (-0.1 * free.grad[inside].mean()).expand_as(moved))


def test_foreign_modules_share_what_is_deployed() -> None:
    import timm

    from tests.contracts import exported

    model = with_random_statistics(timm.create_model("mobilenetv3_small_050", num_classes=5))
    codebooks = cluster_module(model, 8)
    tensors = onnx.load_model_from_string(exported(model, (3, 64, 64))).graph.initializer
    weights = {t.name: numpy_helper.to_array(t) for t in tensors if len(t.dims) in (2, 4) and np.prod(t.dims) > 16}
    assert len(weights) == len(codebooks)
    assert all(len(np.unique(weight)) <= 8 for weight in weights.values())


def test_the_same_seed_gives_the_same_values() -> None:
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(50, 40), nn.Linear(40, 3))
        cluster_module(model, 5, start="random", seed=seed)
        found.append(model[0].weight.detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("start", STARTS)
def test_a_layer_of_few_values_is_left_as_it_is(start: str) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2), nn.Linear(2, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(24.0).remainder(3).view(4, 6))
        model[1].weight.zero_()
    before = {name: layer.weight.detach().clone() for name, layer in weighted_layers(model).items()}
    assert cluster_module(model, 16, start=start) == {"0": 2, "2": 6}
    assert all(torch.equal(before[name], layer.weight) for name, layer in weighted_layers(model).items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clusters": 0}, r"clusters must be between 2 and 65536 \(1 to 16 bits\), got 0"),
        ({"clusters": 1}, "got 1"),
        ({"clusters": 65537}, "got 65537"),
        ({"clusters": {"conv": 16, "linear": 1}}, "got 1"),
        ({"bits": 0}, "got 1"),
        ({"bits": 17}, "got 131072"),
        ({"bits": -1}, "got 0"),
        ({"start": "liner"}, "start must be one of linear, density, random, got 'liner'; did you mean 'linear'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cluster(**options)


def test_networks_that_it_does_not_fit_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"Cluster\.clusters: a key must be conv, linear or the name of a layer, got '1'"
    ):
        cluster_module(nn.Sequential(nn.Linear(4, 4)), {"1": 4})
    with pytest.raises(ValueError, match="at least one layer must be named"):
        cluster_module(nn.Sequential(nn.Linear(4, 4)), {"conv": 4})
    with pytest.raises(ValueError, match="a model must have convolutions or linear layers"):
        cluster_module(nn.ReLU())


@pytest.mark.parametrize("moment", ["of the second k-means", "of training"])
def test_an_interruption_leaves_a_module_of_plain_weights(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    model = with_random_statistics(nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3)))
    kinds, keys = [type(module) for module in model.modules()], sorted(model.state_dict())
    if moment != "of training":
        calls = iter([apply_weight_sharing, interrupted])
        monkeypatch.setattr(cluster, "apply_weight_sharing", lambda *arguments: next(calls)(*arguments))
    with pytest.raises(KeyboardInterrupt):
        Cluster(clusters=4).apply(model, weighted_layers(model), interrupted)
    assert [type(module) for module in model.modules()] == kinds
    assert sorted(model.state_dict()) == keys
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_layer_of_zeros_alone_stays_one() -> None:
    """As where a network begins without a branch: the scale of the normalization after it is zero."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    nn.init.zeros_(model[1].weight)
    layers = weighted_layers(model)

    def learn(module: nn.Module, before_step: object) -> None:
        optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.1)
        module.train()
        for _ in range(2):
            before_step(0.5)
            module(torch.randn(8, 1, 8, 8)).square().sum().backward()
            optimizer.step()

    found = Cluster(clusters=4).apply(model, layers, learn, input_shape=(1, 8, 8))
    assert list(found) == ["5"]
    assert not model[0].weight.any()
    assert model[0].weight.requires_grad
