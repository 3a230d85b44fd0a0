"""Layers whose values count less for the classes get fewer of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress import Artifact, Cluster, Context
from compress.clustering.values_per_layer import FEWEST, MOST, divergence_on, values_of_layers
from compress.networks.weight_layers import layers_of


@pytest.mark.parametrize("mean", [4, 8, 32, 200])
def test_all_weights_have_as_many_values_as_asked_on_average(mean: int) -> None:
    generator = np.random.default_rng(0)
    sizes = {str(i): int(n) for i, n in enumerate(generator.integers(100, 100_000, 12))}
    found = values_of_layers(dict(zip(sizes, generator.lognormal(0, 3, 12).tolist(), strict=True)), sizes, mean)
    assert all(FEWEST <= values <= MOST for values in found.values())
    bits = sum(size * np.log2(found[name]) for name, size in sizes.items()) / sum(sizes.values())
    assert bits == pytest.approx(np.log2(mean), abs=0.05)


def test_the_classes_move_less_than_with_as_many_values_everywhere(learnt: Artifact, context: Context) -> None:
    measured = divergence_on(learnt.model(), context.data.val.images, learnt.preprocessing)
    stage = Cluster(clusters=8, start="even", recipe=None)
    alike = stage(learnt, context)
    chosen = Cluster(clusters=8, start="even", scope="sensitivity", recipe=None)(learnt, context)
    assert measured(learnt.model()) == pytest.approx(0.0, abs=1e-9)
    assert measured(chosen.model()) < measured(alike.model())
    sizes = {name: layer.weight.numel() for name, layer in layers_of(learnt, learnt.model()).items()}
    bits = [sum(sizes[n] * np.log2(1 + b) for n, b in each.metrics["codebooks"].items()) for each in (alike, chosen)]
    assert bits[1] < 1.05 * bits[0]
    assert len({*chosen.metrics["codebooks"].values()}) > 2


def test_even_values_are_multiples_of_one_step_with_zeros_between(learnt: Artifact, context: Context) -> None:
    after = Cluster(clusters=9, start="even", recipe=None)(learnt, context)
    for layer in layers_of(after, after.model()).values():
        values = layer.weight.detach().unique().double()
        assert len(values) <= 10
        assert 0 in values
        whole = values / values.diff().min()
        assert torch.allclose(whole, whole.round(), atol=1e-3)


def test_a_layer_cannot_be_measured_without_images_or_by_layer(learnt: Artifact) -> None:
    with pytest.raises(ValueError, match="finds the number of each layer, so it must be one number"):
        Cluster(clusters={"conv": 4}, scope="sensitivity")
    with pytest.raises(ValueError, match=r"scope must be one of layer, sensitivity.*did you mean 'layer'"):
        Cluster(scope="layers")
    model = learnt.model()
    with pytest.raises(ValueError, match="requires validation images, but none were given"):
        Cluster(scope="sensitivity").apply(model, layers_of(learnt, model))
