"""Copies modules, also those that keep tensors which they computed."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def copied(module: nn.Module) -> nn.Module:
    """A deep copy. Tensors that a module keeps of a run, which torch does not copy where they have gradients, are
    copied without these.

    >>> module = nn.Linear(2, 3)
    >>> module.cache = {"doubled": module.weight * 2}
    >>> copied(module).cache["doubled"].requires_grad
    False
    """
    memo: dict[int, Tensor] = {}
    for inner in module.modules():
        for value in tree_leaves(dict(vars(inner))):
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, dict(memo))
