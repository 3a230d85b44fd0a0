"""Which weights leave, and that they stay away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from compress.networks.weight_layers import weighted_layers
from compress.sparsity.masks import Masks, cubic, keep_in_groups, keep_of_all, keep_of_each


def scores() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"a": torch.rand(20, 3, 3, 3, generator=generator), "b": 0.8 * torch.rand(10, 40, generator=generator)}


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.77])
def test_the_weakest_leave_as_in_torch(amount: float) -> None:
    layers = {name: nn.Module() for name in "ab"}
    for name, score in scores().items():
        layers[name].register_parameter("weight", nn.Parameter(score.clone()))
    prune.global_unstructured([(each, "weight") for each in layers.values()], prune.L1Unstructured, amount=amount)
    for name, kept in keep_of_all(scores(), amount).items():
        assert torch.equal(kept, layers[name].weight_mask.bool())
    for name, kept in keep_of_each(scores(), {"a": amount, "b": amount}).items():
        alone = nn.Module()
        alone.register_parameter("weight", nn.Parameter(scores()[name].clone()))
        prune.l1_unstructured(alone, "weight", amount)
        assert torch.equal(kept, alone.weight_mask.bool())


def test_no_layer_is_emptied() -> None:
    kept = keep_of_all({"strong": torch.rand(100) + 9, "weak": torch.rand(2000)}, 0.99)
    assert kept["weak"].sum() == 2
    assert sum(int(each.sum()) for each in kept.values()) == 21
    assert keep_of_each({"a": torch.rand(10)}, {"a": 0.999})["a"].sum() == 1


@pytest.mark.parametrize(("stay", "group", "shape"), [(2, 4, (6, 16)), (4, 8, (5, 16, 3, 3)), (1, 4, (4, 8, 1))])
def test_patterns_lie_along_the_inputs(stay: int, group: int, shape: tuple[int, ...]) -> None:
    score = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    kept = keep_in_groups(score, stay, group).numpy()
    for place in np.ndindex(shape[0], shape[1] // group, *shape[2:]):
        out, number, *inner = place
        where = (out, slice(number * group, (number + 1) * group), *inner)
        strongest = np.sort(np.argsort(score.numpy()[where])[-stay:])
        assert np.flatnonzero(kept[where]).tolist() == strongest.tolist()


def test_the_schedule_is_the_published_one() -> None:
    final, steps = 0.9, 10
    published = [final + (0 - final) * (1 - t / steps) ** 3 for t in range(steps + 1)]
    assert [final * cubic(t / steps) for t in range(steps + 1)] == pytest.approx(published)


def test_movement_is_minus_weight_times_gradient_also_where_masked() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    masks = Masks(weighted_layers(model), "movement")
    kept = {name: torch.rand_like(score) > 0.5 for name, score in masks.scores().items()}
    masks.set(kept)
    expected = {name: torch.zeros(kept[name].shape) for name in kept}
    for seed in range(3):
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
        copies = {name: layer.weight.detach().clone().requires_grad_() for name, layer in masks.layers.items()}
        hidden = torch.tanh(x @ copies["0"].T + model[0].bias)
        (hidden @ copies["2"].T + model[2].bias).square().sum().backward()
        model(x).square().sum().backward()
        for name, layer in masks.layers.items():
            beneath = layer.parametrizations.weight.original
            expected[name] -= copies[name].grad * beneath.detach()
            assert torch.equal(beneath.grad != 0, kept[name])
        model.zero_grad()
    for name, score in masks.scores().items():
        torch.testing.assert_close(score, expected[name])


def test_zeros_are_held_in_training_and_left_behind() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 3))
    masks = Masks(weighted_layers(model), "magnitude")
    kept = keep_of_all(masks.scores(), 0.8)
    masks.set(kept)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    before = {name: layer.weight.detach().clone() for name, layer in masks.layers.items()}
    for _ in range(5):
        model(torch.randn(4, 2, 6, 6)).square().mean().backward()
        optimizer.step()
    masks.finish()
    assert type(model[0]) is nn.Conv2d
    assert set(model.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    for name, layer in weighted_layers(model).items():
        zero = layer.weight == 0
        assert torch.equal(zero, ~kept[name])
        assert not torch.signbit(layer.weight[zero]).any()  # minus zero would be another number to a coder
        assert not torch.equal(layer.weight, before[name])


def test_an_interruption_leaves_no_layer_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(layer: nn.Module, *arguments: object) -> None:
        if isinstance(layer, nn.Linear):
            raise KeyboardInterrupt
        register(layer, *arguments)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 4))
    register = parametrize.register_parametrization
    monkeypatch.setattr(parametrize, "register_parametrization", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Masks(weighted_layers(model), "magnitude")
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.Linear]


def test_surgery_lets_weights_learn_beneath_their_zeros_and_come_back() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4, bias=False))
    masks = Masks(weighted_layers(model), "surgery")
    masks.set({"0": torch.arange(24).view(4, 6) % 2 == 0})
    assert torch.equal(model[0].weight == 0, torch.arange(24).view(4, 6) % 2 == 1)
    x, wanted = torch.randn(64, 6), torch.full((4, 6), 3.0)  # all weights are wanted, strong ones
    for _ in range(200):
        loss = (model(x) - x @ wanted.T).square().mean()
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            model[0].parametrizations.weight.original -= 0.1 * model[0].parametrizations.weight.original.grad
    grown = masks.scores()["0"].view(-1)[1::2]
    assert grown.min() > 1
    masks.set(keep_of_each(masks.scores(), {"0": 0.0}))
    masks.finish()
    assert model[0].weight.count_nonzero() == 24
