"""Which layer each batch normalization follows, seen in one run of a module."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compress.networks.module_copy import copied
from compress.networks.weight_layers import WeightLayer
from hw_profiles.errors import InputError, short_reason
from hw_profiles.network.workload import InputShape
from hw_profiles.torch_io.trace import run_once

_READS_NUMBERS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal")


def can_be_folded(norm: _BatchNorm) -> bool:
    """Whether a normalization has statistics, and a scale and bias of its own."""
    return norm.running_mean is not None and norm.affine


def observed_pairs(model: nn.Module, input_shape: InputShape) -> list[tuple[WeightLayer, _BatchNorm]]:
    """Layers called once whose output goes into one normalization, called once, and nowhere else, when a copy of the
    module is run with an input of ``input_shape`` (C, H, W), or several by name.

    Raises:
        InputError: the module cannot be run, or what it does depends on the numbers of its input.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    >>> [(type(layer).__name__, type(norm).__name__) for layer, norm in observed_pairs(model, (3, 8, 8))]
    [('Conv2d', 'BatchNorm2d')]
    """
    run = _Run()
    own = copied(model).eval()
    for name, module in own.named_modules():
        if isinstance(module, WeightLayer):
            module.register_forward_hook(lambda _, __, made, name=name: run.wrote(name, made))
        elif isinstance(module, _BatchNorm) and can_be_folded(module):
            module.register_forward_pre_hook(lambda _, given, name=name: run.reads(name, given[0]))
    try:
        with torch.inference_mode(), run:
            outputs = run_once(own, input_shape)
    except Exception as error:  # whatever a module raises when it is run
        raise InputError(
            f"{type(model).__name__}: which layer a batch normalization follows must not depend on the input "
            f"({short_reason(error)})"
        ) from None
    run.uses.update(id(each) for each in tree_leaves(outputs) if isinstance(each, Tensor))
    return [(model.get_submodule(layer), model.get_submodule(norm)) for layer, norm in run.pairs()]  # type: ignore[misc]


class _Run(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how often each tensor is read."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses: Counter[int] = Counter()
        self.calls: Counter[str] = Counter()
        self.writers: dict[int, str] = {}
        self.norms: dict[str, int] = {}
        self.alive: list[Any] = []  # an id is a tensor's own only while the tensor lives

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.rpartition("::")[2] in _READS_NUMBERS:
            raise ValueError("it reads numbers of a tensor")
        result = func(*args, **(kwargs or {}))
        read = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        self.uses.update(id(each) for each in read)
        self.alive += [read, result]
        return result

    def wrote(self, name: str, made: Tensor) -> None:
        self.calls[name] += 1
        self.writers[id(made)] = name
        self.alive.append(made)

    def reads(self, name: str, given: Tensor) -> None:
        self.calls[name] += 1
        self.norms[name] = id(given)
        self.alive.append(given)

    def pairs(self) -> list[tuple[str, str]]:
        found = [(self.writers.get(given, ""), norm, given) for norm, given in self.norms.items()]
        return [
            (layer, norm)
            for layer, norm, given in found
            if layer and self.calls[layer] == self.calls[norm] == self.uses[given] == 1
        ]
