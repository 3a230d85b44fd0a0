"""Amounts per layer that cost every layer as much."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compress.networks.weight_layers import weighted_layers
from compress.sparsity.layer_sensitivity import AMOUNTS, equal_amounts, layer_losses


def test_losses_are_those_of_one_pruned_layer_and_leave_the_module_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 2))
    x = torch.randn(50, 20)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss_of(module: nn.Module) -> float:
        with torch.no_grad():
            return float((module(x) - torch.relu(x @ before["0.weight"].T + before["0.bias"]) @ before["2.weight"].T
                          - before["2.bias"]).square().mean())  # fmt: skip

    losses = layer_losses(model, weighted_layers(model), loss_of)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for name in ("0", "2"):
        weight = before[f"{name}.weight"]
        for place, amount in enumerate(AMOUNTS):
            limit = np.sort(weight.abs().numpy().ravel())[max(round(amount * weight.numel()) - 1, 0)]
            alone = {**before, f"{name}.weight": weight * (weight.abs() > limit) if amount else weight}
            model.load_state_dict(alone)
            assert losses[name][place] == pytest.approx(loss_of(model), rel=1e-4, abs=1e-9)
    assert losses["0"][0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("amount", [0.2, 0.5, 0.8, 0.95, 0.985])
def test_the_sum_is_as_wanted_and_the_losses_are_equal(amount: float) -> None:
    places = np.array(AMOUNTS)
    losses = {"a": (places**2).tolist(), "b": (3 * places**2).tolist(), "c": (0.1 + 0.5 * places**4).tolist()}
    sizes = {"a": 1000, "b": 4000, "c": 300}
    found = equal_amounts(losses, sizes, amount)
    assert sum(found[name] * sizes[name] for name in sizes) == pytest.approx(amount * 5300)
    reached = {name: np.interp(found[name], places, losses[name]) for name in sizes}
    inside = [reached[name] for name in sizes if 0 < found[name] < 0.99]
    assert max(inside) == pytest.approx(min(inside), rel=1e-3)
    assert found["a"] >= found["b"]


def test_a_layer_that_may_leave_for_nothing_leaves_first() -> None:
    losses = {"idle": [1.0] * len(AMOUNTS), "needed": [1.0, *[2.0] * (len(AMOUNTS) - 1)]}
    found = equal_amounts(losses, {"idle": 100, "needed": 100}, 0.4)
    assert found["idle"] == pytest.approx(0.8)
    assert found["needed"] == pytest.approx(0, abs=1e-6)
    assert equal_amounts(losses, {"idle": 100, "needed": 100}, 0.995) == {"idle": 0.995, "needed": 0.995}
