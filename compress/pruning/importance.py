"""The importance of each channel and attention head of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from compress.data.dataset import Split
from compress.data.preprocessing import Preprocessing
from compress.networks.slice_channels import FilterLayer
from compress.pruning.channel_groups import Group, Groups, Member

Scores = dict[str, Tensor]  # group -> one score for each unit
Batch = tuple[Tensor, Tensor]  # (N, C, H, W) normalized images, (N,) labels

CRITERIA = ("l1", "l2", "bn_scale", "taylor", "fpgm")
TAYLOR_IMAGES, _TAYLOR_BATCH = 1024, 128
_SMALLEST_MEAN = 1e-12


def channel_scores(model: nn.Module, groups: Groups, criterion: str, batches: Iterable[Batch] = ()) -> Scores:
    """A score for each unit of each group; scores of all groups are ranked together.

    ``criterion`` is one of ``CRITERIA``. ``"l1"`` and ``"l2"``: the norm of the filters that write the channel
    (1608.08710). ``"bn_scale"``: the size of the batch normalization's scale behind them (1708.06519); a bare
    convolution counts by its norm. ``"fpgm"``: the sum of a filter's distances from all filters of its layer, least for
    the ones that the others can stand in for (geometric median, 1811.00250). These speak of one layer, so each group is
    scaled to the mean 1. ``"taylor"``: what the loss on ``batches`` would change by, to first order, if the channel
    were zero (1906.10771); it speaks of the whole network, so all groups are scaled alike.

    >>> from compress.pruning.module_groups import find_groups
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 1))
    >>> _ = net[0].weight.data.copy_(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1))
    >>> channel_scores(net, find_groups(net, (1, 4, 4)).groups, "l1")
    {'0': tensor([0.5000, 1.5000])}
    """
    if not groups:
        return {}
    if criterion == "taylor":
        return _taylor(model, groups, batches)
    layers = dict(model.named_modules())
    scores = {name: _magnitude(layers, group, criterion) for name, group in groups.items()}
    return {name: score / score.mean().clamp_min(_SMALLEST_MEAN) for name, score in scores.items()}


def taylor_batches(split: Split, preprocessing: Preprocessing, seed: int) -> Iterator[Batch]:
    """At most 1024 images as the network reads them, with their labels."""
    some = split.some(TAYLOR_IMAGES, seed)
    for i in range(0, len(some), _TAYLOR_BATCH):
        images = np.asarray(some.images[i : i + _TAYLOR_BATCH])
        yield torch.from_numpy(preprocessing.tensor(images)), torch.from_numpy(some.labels[i : i + _TAYLOR_BATCH])


def distances_from_all(filters: Tensor) -> Tensor:
    """For each filter (a row) the sum of its Euclidean distances from every one (1811.00250, equation 4).

    >>> distances_from_all(torch.tensor([[0.0], [1.0], [3.0]]))
    tensor([4., 3., 5.])
    """
    rows = filters.flatten(1)
    distances: Tensor = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
    return distances


def _written(layers: Mapping[str, nn.Module], group: Group) -> tuple[list[Member], list[Member]]:
    """The normalizations that a group's channels leave, and the layers with filters."""
    written = [member for member in group.members if not member.inputs]
    norms = [member for member in written if isinstance(layers[member.layer], _BatchNorm)]
    return norms, [member for member in written if isinstance(layers[member.layer], FilterLayer)]


def _magnitude(layers: Mapping[str, nn.Module], group: Group, criterion: str) -> Tensor:
    norms, writers = _written(layers, group)
    measure, counted = _MEASURES[criterion], writers
    scaled = [member for member in norms if layers[member.layer].weight is not None]
    if criterion == "bn_scale" and scaled:
        measure, counted = _scale, scaled
    values = [_by_unit(group, member, measure(layers[member.layer])) for member in counted]
    return torch.stack([(value / value.mean().clamp_min(_SMALLEST_MEAN)) ** 2 for value in values]).sum(0).sqrt()


def _taylor(model: nn.Module, groups: Groups, batches: Iterable[Batch]) -> Scores:
    """The mean over batches of (parameter times gradient, summed over what makes the unit) squared, its root."""
    layers = dict(model.named_modules())
    totals = {name: torch.zeros(group.width) for name, group in groups.items()}
    for x, labels in batches:
        model.eval().zero_grad()
        F.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
        for name, group in groups.items():
            norms, writers = _written(layers, group)
            scaled = [member for member in norms if layers[member.layer].weight is not None]
            changes = [_by_unit(group, member, _change(layers[member.layer])) for member in scaled or writers]
            totals[name] += torch.stack(changes).sum(0) ** 2
    model.zero_grad()
    mean = torch.cat(list(totals.values())).mean().clamp_min(1e-30)
    return {name: (total / mean).sqrt() for name, total in totals.items()}


def _by_unit(group: Group, member: Member, value: Tensor) -> Tensor:
    """The sum for each unit of a value for each channel of a layer."""
    places, units = torch.tensor(member.places), torch.tensor(member.units)
    return torch.zeros(group.width).index_add_(0, units, value.detach().float()[places])


def _change(layer: nn.Module) -> Tensor:
    """Parameter times gradient, summed over what makes each output channel."""
    products = [_by_output(layer, p.detach() * p.grad) for p in layer.parameters() if p.grad is not None]
    return torch.stack([value.sum(1) if value.ndim > 1 else value for value in products]).sum(0)


def _filters(layer: nn.Module) -> Tensor:
    assert isinstance(layer, FilterLayer)
    return _by_output(layer, layer.weight.detach())


def _by_output(layer: nn.Module, value: Tensor) -> Tensor:
    """(output channels, ...) of a weight, or of a bias."""
    turned = isinstance(layer, nn.ConvTranspose2d) and value.ndim > 1
    return (value.transpose(0, 1) if turned else value).flatten(1 if value.ndim > 1 else 0)


def _scale(layer: nn.Module) -> Tensor:
    assert isinstance(layer, _BatchNorm)
    return layer.weight.detach().abs()


_MEASURES: dict[str, Callable[[nn.Module], Tensor]] = {
    "l1": lambda layer: _filters(layer).norm(1, dim=1),
    "l2": lambda layer: _filters(layer).norm(2, dim=1),
    "bn_scale": lambda layer: _filters(layer).norm(2, dim=1),
    "fpgm": lambda layer: distances_from_all(_filters(layer)),
}
