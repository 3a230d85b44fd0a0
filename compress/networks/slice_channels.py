"""Slices channels and attention heads out of the layers of any module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hw_profiles.errors import InputError

INPUTS, HEADS, REMOVED = ":inputs", ":heads", ":removed"
FilterLayer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
SliceableLayer = FilterLayer | _BatchNorm | nn.PReLU


def cut_module(module: nn.Module, kept: Mapping[str, Sequence[int]]) -> nn.Module:
    """The module itself, its layers cut to the numbers in ``kept``, ascending.

    ``kept["name"]`` are the output channels of a convolution, linear layer, batch normalization or PReLU,
    ``"name:inputs"`` the input channels of one of the first two, and ``"name:heads"`` the heads of an attention module.
    ``"name:removed"`` puts an identity in the place of a block.
    What is not named stays whole, so names have to be given for all layers that a channel goes through.

    Raises:
        InputError: no such layer, one that cannot be cut, or channels that it does not have.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    >>> cut_module(net, {"0": [1, 3], "1:inputs": [1, 3]})(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 2, 8, 8])
    """
    blocks = [key.removesuffix(REMOVED) for key in kept if key.endswith(REMOVED)]
    layers = dict(module.named_modules())
    for name in blocks:
        if name not in layers or not name:
            raise InputError(f"kept: there is no block {name!r:.100}")
        module.set_submodule(name, nn.Identity())
    layers = dict(module.named_modules())
    for key, numbers in kept.items():
        name, colon, side = key.partition(":")
        if colon + side == REMOVED:
            continue
        layer = layers.get(name)
        if layer is None:
            raise InputError(f"kept: there is no layer {name!r:.100}")
        if colon + side == HEADS:
            _cut_heads(name, layer, numbers)
        elif isinstance(layer, SliceableLayer):
            inputs = colon + side == INPUTS
            _cut(name, layer, _checked(name, numbers, width_of(layer, inputs=inputs)), inputs=inputs)
        else:
            raise InputError(
                f"kept: {name} must be a convolution, linear layer, batch normalization or PReLU, got {_kind(layer)}"
            )
    return module


def reorder_module(module: nn.Module, order: Mapping[str, Sequence[int]]) -> nn.Module:
    """The module itself, the channels of its layers in another ``order``; keys are those of :func:`cut_module`.

    >>> layer = reorder_module(nn.Sequential(nn.Linear(1, 2)), {"0": [1, 0]})[0]
    >>> layer.out_features
    2
    """
    for key, numbers in order.items():
        name, colon, side = key.partition(":")
        layer = module.get_submodule(name)
        assert isinstance(layer, SliceableLayer)
        _cut(name, layer, torch.tensor(numbers, device="cpu"), inputs=colon + side == INPUTS)
    return module


def of_original(before: Mapping[str, Sequence[int]], now: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The channels that are left ``now`` of those that were left ``before``, by their first numbers.

    >>> of_original({"a": [3, 5, 8]}, {"a": [0, 2], "b": [1]})
    {'a': (3, 8), 'b': (1,)}
    """
    return {
        key: tuple(before[key][i] for i in channels) if key in before else tuple(channels)
        for key, channels in now.items()
    }


def is_depthwise(layer: nn.Module) -> bool:
    """Whether each channel is convolved alone.

    >>> is_depthwise(nn.Conv2d(8, 8, 3, groups=8)), is_depthwise(nn.Conv2d(8, 8, 3, groups=2))
    (True, False)
    """
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels


def width_of(layer: nn.Module, *, inputs: bool = False) -> int:
    """Channels that a layer writes, or reads."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return layer.in_channels if inputs else layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features if inputs else layer.out_features
    if isinstance(layer, nn.PReLU):
        return layer.num_parameters
    assert isinstance(layer, _BatchNorm)
    return layer.num_features


def _cut(name: str, layer: SliceableLayer, chosen: Tensor, *, inputs: bool) -> None:
    if isinstance(layer, _BatchNorm | nn.PReLU):
        if inputs:
            kind = "batch normalization" if isinstance(layer, _BatchNorm) else "PReLU"
            raise InputError(f"kept: {name} is a {kind} and has no inputs of its own")
        _cut_norm(layer, chosen) if isinstance(layer, _BatchNorm) else _cut_slopes(layer, chosen)
        return
    grouped = not isinstance(layer, nn.Linear) and layer.groups > 1 and not is_depthwise(layer)
    if grouped:
        raise InputError(f"kept: {name} is a grouped convolution, whose channels cannot be removed")
    input_axis = 0 if isinstance(layer, nn.ConvTranspose2d) else 1
    layer.weight = _parameter(layer.weight, chosen, input_axis if inputs else 1 - input_axis)
    if not inputs and layer.bias is not None:
        layer.bias = _parameter(layer.bias, chosen, 0)
    if isinstance(layer, nn.Linear):
        setattr(layer, "in_features" if inputs else "out_features", len(chosen))
    elif is_depthwise(layer):
        layer.groups = layer.in_channels = layer.out_channels = len(chosen)
    else:
        setattr(layer, "in_channels" if inputs else "out_channels", len(chosen))


def _cut_slopes(layer: nn.PReLU, chosen: Tensor) -> None:
    layer.weight = _parameter(layer.weight, chosen, 0)
    layer.num_parameters = len(chosen)


def _cut_norm(norm: _BatchNorm, chosen: Tensor) -> None:
    for name in ("weight", "bias"):
        if getattr(norm, name) is not None:
            setattr(norm, name, _parameter(getattr(norm, name), chosen, 0))
    for name in ("running_mean", "running_var"):
        if getattr(norm, name) is not None:
            setattr(norm, name, getattr(norm, name).index_select(0, chosen.to(getattr(norm, name).device)))
    norm.num_features = len(chosen)


def _cut_heads(name: str, attention: nn.Module, numbers: Sequence[int]) -> None:
    """What an attention module of timm says of its heads; its layers are cut by their own names."""
    heads = getattr(attention, "num_heads", None)
    if not isinstance(heads, int):
        raise InputError(f"kept: {name} must be an attention module, got {_kind(attention)}")
    attention.num_heads = len(_checked(name, numbers, heads))  # type: ignore[assignment]
    width = getattr(attention, "attn_dim", None)
    if isinstance(width, int):
        attention.attn_dim = width // heads * len(numbers)  # type: ignore[assignment]


def _checked(name: str, numbers: Sequence[int], width: int) -> Tensor:
    if not numbers or list(numbers) != sorted(set(numbers)) or numbers[0] < 0 or numbers[-1] >= width:
        raise InputError(
            f"kept: {name} must be ascending numbers below {width}, at least one, got {list(numbers)!r:.80}"
        )
    return torch.tensor(numbers, device="cpu")


def _parameter(value: Tensor, chosen: Tensor, dimension: int) -> nn.Parameter:
    return nn.Parameter(value.detach().index_select(dimension, chosen.to(value.device)), value.requires_grad)


def _kind(layer: nn.Module) -> str:
    return type(layer).__name__
