"""The layers of a module that have weights, and settings per layer, per kind or for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

from compress.networks.artifact import Artifact
from hw_profiles.errors import InputError
from hw_profiles.network.workload import WEIGHTED, Op
from hw_profiles.spelling_suggestions import did_you_mean

WeightLayer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
KINDS = ("conv", "linear")

T = TypeVar("T")


def weighted_layers(model: nn.Module) -> dict[str, WeightLayer]:
    """Convolutions and linear layers by their name in the module, in its order.

    Raises:
        InputError: there is none, or two of them share one weight.

    >>> list(weighted_layers(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Linear(2, 2))))
    ['0', '2']
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, WeightLayer)}
    if not found:
        raise InputError(f"{type(model).__name__}: a model must have convolutions or linear layers, this has none")
    weights = {
        name: layer.weight for name, layer in found.items()
    }  # held: a computed one would leave its id to another
    owners: dict[int, str] = {}
    for name, weight in weights.items():
        owner = owners.setdefault(id(weight), name)
        if owner != name:
            raise InputError(f"shared weights are not supported here: {owner} and {name} share one")
    return found


def layers_of(artifact: Artifact, model: nn.Module) -> dict[str, WeightLayer]:
    """The layers of an artifact's module by the names of the operations that they are.

    >>> from compress import Preprocessing
    >>> from search_spaces import build_model, preset
    >>> record = Preprocessing(channels=3, sizes=((32, 32),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=("a",) * 10)
    >>> model = build_model(preset("resnet8"))
    >>> artifact = Artifact(source=preset("resnet8"), weights={}, preprocessing=record).with_model(model)
    >>> [*layers_of(artifact, model)][:2]
    ['stem', 'stages.0.0.conv1']
    """
    layers, found = weighted_layers(model), {}
    if artifact.network.stated_shape is None:  # a module of which nobody knows what it reads: by its own names
        return layers
    for op in artifact.source.workload().ops:
        keys = weight_keys(op, artifact.weights) if op.kind in WEIGHTED else []
        module = keys[0].removesuffix(".weight") if keys else ""
        if module in layers:
            found[op.name] = layers[module]
    return found


def per_layer_setting(setting: T | Mapping[str, T], layers: Mapping[str, WeightLayer | Op], what: str) -> dict[str, T]:
    """The setting of each layer: the same for all, or from a mapping by the layer's name, else by its kind; layers that
    a mapping leaves out are left out.

    Raises:
        InputError: a key is neither a layer nor a kind, or nothing is left.

    >>> layers = weighted_layers(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 2)))
    >>> per_layer_setting({"conv": 256, "1": 32}, layers, "clusters")
    {'0': 256, '1': 32}
    """
    if not isinstance(setting, Mapping):
        return dict.fromkeys(layers, setting)
    for key in setting:
        if key not in layers and key not in KINDS:
            known = did_you_mean(key, [*KINDS, *layers])
            raise InputError(f"{what}: a key must be conv, linear or the name of a layer, got {key!r}{known}")
    chosen = {}
    for name, layer in layers.items():
        linear = layer.kind == "linear" if isinstance(layer, Op) else isinstance(layer, nn.Linear)
        kind = "linear" if linear else "conv"
        if name in setting or kind in setting:
            chosen[name] = setting[name if name in setting else kind]
    if not chosen:
        raise InputError(f"{what}: at least one layer must be named, got {dict(setting)}")
    return chosen


def weight_keys(op: Op, weights: Mapping[str, Tensor]) -> list[str]:
    """State-dict keys of an operation: of a ConvNormAct, or of a bare convolution or linear layer."""
    if f"{op.name}.conv.weight" in weights:
        norm = ("weight", "bias", "running_mean", "running_var")
        return [f"{op.name}.conv.weight", *(f"{op.name}.norm.{name}" for name in norm)]
    return [key for key in (op.weight, op.bias_name) if key in weights]
