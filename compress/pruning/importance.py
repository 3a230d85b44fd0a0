"""The importance of each channel of an Arch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.data.dataset import Split
from compress.data.preprocessing import Preprocessing
from compress.networks.artifact import Artifact
from compress.networks.weight_layers import weight_keys
from hw_profiles.network.channel_groups import ChannelGroups
from hw_profiles.network.workload import WEIGHTED, Op, Workload

Scores = dict[str, Tensor]  # group -> one score for each channel

TAYLOR_IMAGES, _TAYLOR_BATCH = 1024, 128


def channel_scores(artifact: Artifact, groups: ChannelGroups, criterion: str, split: Split, seed: int = 0) -> Scores:
    """For each prunable group a score per channel; scores of all groups are ranked together.

    ``criterion`` is a key of ``CRITERIA``. ``"l1"`` and ``"l2"``: the norm of the filters that write the channel
    (1608.08710). ``"bn_scale"``: the size of the batch normalisation's scale behind them (1708.06519); a bare
    convolution counts by its norm. ``"fpgm"``: the sum of a filter's distances from all filters of its layer, least for
    the ones that the others can stand in for (geometric median, 1811.00250). These speak of one layer, so each group is
    scaled to the mean 1. ``"taylor"``: what the loss on images of ``split`` would change by, to first order, if the
    channel were zero (1906.10771); it speaks of the whole network, so all groups are scaled alike.
    """
    workload = artifact.arch.workload()
    if criterion == "taylor":
        return _normalised(
            _taylor(artifact.model(), artifact.preprocessing, workload, groups, split.some(TAYLOR_IMAGES, seed))
        )
    score = _MAGNITUDES[criterion]
    totals = {group: torch.zeros(groups.width[group]) for group in groups.prunable()}
    for op in _writers(workload, groups):
        value = score(artifact.weights, op)
        totals[groups.of[op.name]] += (value / value.mean().clamp_min(1e-12)) ** 2
    return {group: (total / total.mean().clamp_min(1e-12)).sqrt() for group, total in totals.items()}


def _writers(workload: Workload, groups: ChannelGroups) -> list[Op]:
    """The operations whose filters write a channel that may leave."""
    prunable = set(groups.prunable())
    return [op for op in workload.ops if op.kind in WEIGHTED and groups.of[op.name] in prunable]


def _norm(order: float) -> Callable[[Mapping[str, Tensor], Op], Tensor]:
    def score(weights: Mapping[str, Tensor], op: Op) -> Tensor:
        filters = weights[weight_keys(op, weights)[0]].flatten(1)
        lengths: Tensor = torch.linalg.vector_norm(filters, order, dim=1)
        return lengths

    return score


def _bn_scale(weights: Mapping[str, Tensor], op: Op) -> Tensor:
    scale = weights.get(f"{op.name}.norm.weight")
    return _norm(2)(weights, op) if scale is None else scale.abs()


def distances_from_all(filters: Tensor) -> Tensor:
    """For each filter (a row) the sum of its Euclidean distances from every one (1811.00250, equation 4).

    >>> distances_from_all(torch.tensor([[0.0], [1.0], [3.0]]))
    tensor([4., 3., 5.])
    """
    rows = filters.flatten(1)
    distances: Tensor = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
    return distances


def _fpgm(weights: Mapping[str, Tensor], op: Op) -> Tensor:
    return distances_from_all(weights[weight_keys(op, weights)[0]])


_MAGNITUDES: dict[str, Callable[[Mapping[str, Tensor], Op], Tensor]] = {
    "l1": _norm(1),
    "l2": _norm(2),
    "bn_scale": _bn_scale,
    "fpgm": _fpgm,
}
CRITERIA = ("l1", "l2", "bn_scale", "taylor", "fpgm")


def _taylor(
    model: nn.Module, preprocessing: Preprocessing, workload: Workload, groups: ChannelGroups, split: Split
) -> Scores:
    """The mean over batches of (parameter times gradient, summed over what makes the channel) squared."""
    totals = {group: torch.zeros(groups.width[group]) for group in groups.prunable()}
    writers = _writers(workload, groups)
    model.eval()
    for i in range(0, len(split), _TAYLOR_BATCH):
        x = torch.from_numpy(preprocessing.tensor(split.images[i : i + _TAYLOR_BATCH]))
        model.zero_grad()
        loss = F.cross_entropy(model(x), torch.from_numpy(split.labels[i : i + _TAYLOR_BATCH]))
        loss.backward()  # type: ignore[no-untyped-call]
        for group in totals:
            change = sum(_change(model, op) for op in writers if groups.of[op.name] == group)
            totals[group] += torch.as_tensor(change) ** 2
    return totals


def _change(model: nn.Module, op: Op) -> Tensor:
    """Parameter times gradient of each channel that an operation writes: of its normalisation, or of its filters."""
    parameters = dict(model.named_parameters())
    norm = [parameters[key] for key in (f"{op.name}.norm.weight", f"{op.name}.norm.bias") if key in parameters]
    found = norm or [parameters[key] for key in weight_keys(op, parameters)]
    products = [(p.detach() * p.grad).flatten(1 if p.ndim > 1 else 0) for p in found if p.grad is not None]
    return sum((value.sum(1) if value.ndim > 1 else value for value in products), torch.zeros(op.weight_shape[0]))


def _normalised(scores: Scores) -> Scores:
    mean = torch.cat(list(scores.values())).mean().clamp_min(1e-30)
    return {group: (score / mean).sqrt() for group, score in scores.items()}
