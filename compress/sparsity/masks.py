"""Masks of zero weights: how they are chosen, and how a module keeps them while it trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.networks.weight_layers import WeightLayer

Scores = Mapping[str, Tensor]  # layer -> a score for each weight; the lowest leave first
Kept = dict[str, Tensor]  # layer -> True where a weight stays

_LEAST_OF_A_LAYER = 1e-3  # of a layer's weights stay however weak they are, for a layer of zeros tells nothing
_RAMP = 0.6  # share of a training in which weights leave; in the rest of it those that stay recover
_UPDATES = 100


def keep_of_each(scores: Scores, amounts: Mapping[str, float]) -> Kept:
    """Without the weakest weights of each layer, ``amounts[layer]`` of all, at least one stays.

    >>> keep_of_each({"a": torch.tensor([3.0, 1.0, 2.0, 4.0])}, {"a": 0.5})["a"]
    tensor([ True, False, False,  True])
    """
    return {name: _largest(score, round((1 - amounts[name]) * score.numel())) for name, score in scores.items()}


def keep_of_all(scores: Scores, amount: float) -> Kept:
    """Without the weakest weights of all layers together; the strongest 0.1 % of each layer stay.

    >>> kept = keep_of_all({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0, 5.0, 6.0])}, 0.5)
    >>> kept["a"].tolist(), kept["b"].tolist()
    ([False, True], [False, False, True, True])
    """
    raised = []
    for score in scores.values():
        safe = _largest(score, round(_LEAST_OF_A_LAYER * score.numel()))
        raised.append(torch.where(safe, torch.inf, score).flatten())
    joined = torch.cat(raised)
    kept = _largest(joined, round((1 - amount) * joined.numel()))
    parts = torch.split(kept, [score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def keep_in_groups(score: Tensor, stay: int, group: int) -> Tensor:
    """True at the ``stay`` strongest of every ``group`` neighbors along the input axis of (out, in, …) weights.

    >>> keep_in_groups(torch.tensor([[3.0, 1.0, 2.0, 4.0]]), 2, 4)
    tensor([[ True, False, False,  True]])
    """
    groups = torch.unflatten(score.movedim(1, -1), -1, (-1, group))
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, groups.topk(stay).indices, True)
    return kept.flatten(-2).movedim(-1, 1)


def cubic(progress: float) -> float:
    """How much of the final amount has left: fast at first, while there is much to choose from, then ever slower
    (Zhu and Gupta, 1710.01878).

    >>> [cubic(progress) for progress in (0.0, 0.5, 1.0)]
    [0.0, 0.875, 1.0]
    """
    return 1 - (1 - progress) ** 3


class Mask(nn.Module):
    """A parametrization that sets weights to exactly zero; what they were is kept beneath and gets no gradient.

    With ``moving`` it adds up, for every weight, how far training wants it away from zero: minus its value times its
    gradient, as if it were not masked (movement pruning, Sanh et al., 2005.07683). With ``learning`` what is beneath a
    zero gets the gradient as if it were not masked, so that it may grow and come back (Guo et al., 1608.04493).
    """

    kept: Tensor
    movement: Tensor
    update: Tensor

    def __init__(self, weight: Tensor, *, moving: bool = False, learning: bool = False) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones_like(weight, dtype=torch.bool))
        self.register_buffer("update", torch.zeros((), dtype=torch.int64))
        self.moving = moving
        self.learning = learning
        if moving:
            self.register_buffer("movement", torch.zeros_like(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with its zeros."""
        masked = torch.where(self.kept, weight, 0.0)
        if self.moving and masked.requires_grad:
            value = weight.detach()

            def add(gradient: Tensor) -> None:
                self.movement.sub_(gradient * value)

            masked.register_hook(add)  # type: ignore[no-untyped-call]
        return weight + (masked - weight).detach() if self.learning else masked


class Masks:
    """The masks of some layers of a module, from :meth:`__init__` to :meth:`finish`."""

    def __init__(self, layers: Mapping[str, WeightLayer], criterion: str) -> None:
        self.layers = layers
        self.of = {
            name: Mask(layer.weight.detach(), moving=criterion == "movement", learning=criterion == "surgery")
            for name, layer in layers.items()
        }
        try:
            for name, mask in self.of.items():
                parametrize.register_parametrization(layers[name], "weight", mask)
        except BaseException:  # an interruption too leaves no layer masked
            self.finish()
            raise

    def scores(self) -> dict[str, Tensor]:
        """The criterion's score of each weight: the magnitude that it has or had, or its movement."""
        return {name: mask.movement if mask.moving else self._beneath(name).abs() for name, mask in self.of.items()}

    def set(self, kept: Kept) -> None:
        """Weights that are not kept are zero from now on."""
        for name, values in kept.items():
            self.of[name].kept.copy_(values)

    def due(self, share: float) -> float | None:
        """The progress of the zeros after this share of a training if the masks should be set anew, else None.

        What was due last is part of the state dict, so a training that is taken up again sets them where it would have.
        """
        number = int(min(share / _RAMP, 1.0) * _UPDATES)
        found = any(int(mask.update) < number for mask in self.of.values())
        for mask in self.of.values():
            mask.update.fill_(number)
        return number / _UPDATES if found else None

    def owns(self, key: str) -> bool:
        """Whether an entry of the module's state dict belongs to a mask."""
        return ".parametrizations.weight.0." in f".{key}"

    def finish(self) -> None:
        """Leave the zeros in the weights and the module as it was."""
        for name, layer in self.layers.items():
            if _is_masked_by(layer, self.of[name]):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)

    def _beneath(self, name: str) -> Tensor:
        holder = self.layers[name].get_submodule("parametrizations.weight")
        original = holder.original
        assert isinstance(original, Tensor)
        return original.detach()


def _is_masked_by(layer: WeightLayer, mask: Mask) -> bool:
    return parametrize.is_parametrized(layer, "weight") and mask in layer.modules()


def _largest(score: Tensor, count: int) -> Tensor:
    kept = torch.zeros(score.numel(), dtype=torch.bool)
    kept[score.flatten().topk(max(count, 1)).indices] = True
    return kept.view(score.shape)
