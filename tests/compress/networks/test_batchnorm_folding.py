"""Batch normalization folded in place."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from compress.networks.batchnorm_folding import fold_normalization, frozen_batchnorm
from search_spaces import build_model, preset
from tests.contracts import with_random_statistics


def test_the_weights_are_those_that_torch_folds() -> None:
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(3, 6, 3), nn.Linear(6, 5)
    model = with_random_statistics(
        nn.Sequential(conv, nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear, nn.BatchNorm1d(5))
    )
    model[5].running_mean.normal_()
    expected = [fuse_conv_bn_eval(conv, model[1]), fuse_linear_bn_eval(linear, model[5])]
    pairs = fold_normalization(model)
    assert [layer for layer, _ in pairs] == [conv, linear]
    for (layer, norm), fused in zip(pairs, expected, strict=True):
        torch.testing.assert_close(layer.weight, fused.weight)
        torch.testing.assert_close(norm.bias, fused.bias)
        assert norm.weight.tolist() == [1.0] * len(norm.weight)
        assert layer.bias.abs().max() == 0


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t", "efficientnet_b0", "ours"])
def test_what_a_network_computes_stays(name: str) -> None:
    made = (
        build_model(preset("mobilenetv2_050", input_shape=(3, 32, 32))) if name == "ours" else timm.create_model(name)
    )
    model = with_random_statistics(made).double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(x)
        pairs = fold_normalization(model)
        after = model(x)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert len(pairs) == norms
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6 * float(before.abs().max()))


class Branching(nn.Module):
    """Its convolution is read twice, once without the normalization."""

    def __init__(self, on_numbers: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.on_numbers = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), on_numbers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        if self.on_numbers and y.sum() > 0:
            return y
        return y + self.norm(y)


def test_a_layer_that_others_read_keeps_its_weights() -> None:
    assert fold_normalization(with_random_statistics(Branching(False))) == []
    with pytest.raises(ValueError, match="Branching: which layer a batch normalization follows must not depend"):
        fold_normalization(with_random_statistics(Branching(True)))


def test_held_normalizations_stay_neutral_in_training() -> None:
    torch.manual_seed(0)
    model = with_random_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    pairs = fold_normalization(model)
    norm, bias = pairs[0][1], pairs[0][1].bias.detach().clone()
    with frozen_batchnorm(pairs) as evaluate:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
        for _ in range(3):
            model.train()
            evaluate()
            optimizer.zero_grad()
            model(torch.randn(8, 3, 5, 5) + 4).square().mean().backward()
            optimizer.step()
    assert norm.weight.tolist() == [1.0] * 4
    assert norm.running_mean.tolist() == [0.0] * 4
    assert model[0].bias.tolist() == [0.0] * 4
    assert not torch.equal(norm.bias, bias)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_what_learns_as_it_was(error: type[BaseException]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()
    model[2].bias.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(error), frozen_batchnorm(fold_normalization(model)):
        raise error
    assert [parameter.requires_grad for parameter in model.parameters()] == before


class Chooses(nn.Module):
    """A way that depends on the size of the input, which torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.twice = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] > 8:
            x = x[:, :, ::2, ::2]
        y = self.last(torch.relu(self.norm(self.conv(x))))
        return y + self.twice(y)


def test_a_module_that_fx_cannot_follow_is_run_once() -> None:
    model = with_random_statistics(Chooses()).double()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match="or the shape of the input be known"):
        fold_normalization(model)
    with torch.inference_mode():
        before = model(x)
        pairs = fold_normalization(model.float(), (3, 16, 16))
        after = model.double()(x)
    assert [(layer, norm) for layer, norm in pairs] == [(model.conv, model.norm)]  # the other output is read twice
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
