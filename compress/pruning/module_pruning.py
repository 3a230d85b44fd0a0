"""Structured pruning of any module: channels and attention heads."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from compress.data.dataset import Dataset
from compress.networks.artifact import Artifact
from compress.networks.network_source import GivenModule, Source, Timm
from compress.networks.slice_channels import cut_module, width_of
from compress.pruning.channel_selection import channels_saved, choose_channels, least_widths, so_many
from compress.pruning.importance import CRITERIA, TAYLOR_IMAGES, Scores
from compress.pruning.module_groups import Group, find_groups, kept_channels
from compress.pruning.module_importance import Batch, group_scores
from compress.stage_interface import Context
from hw_profiles.devices.device import Device
from hw_profiles.errors import InputError
from hw_profiles.layer_profile import Breakdown, LayerProfile, layers
from hw_profiles.torch_io.trace import trace

if TYPE_CHECKING:
    from compress.pruning.prune import Prune

_USUAL_AMOUNT = 0.2
_BATCH = 128
# Costs are first-order: they are looked at again once half of the total saving or a tenth of all channels is
# gone.
_SHARE_OF_GAP, _MOST_AT_ONCE, _LEAST_AT_ONCE = 0.5, 0.1, 0.001
_NEAR = 0.97
_REASONS_SHOWN = 5
_QUANTITIES: dict[str, Callable[[Breakdown], float]] = {
    "latency_ms": lambda found: found.latency.ms,
    "peak_ram_bytes": lambda found: found.peak.live_bytes,
    "macs": lambda found: found.macs,
}
_LEAST_OF_LIVE = 1e-3  # what lives where the limit holds costs something, too: channels there may live on elsewhere

# recover(module): trains the module in place.
Recover = Callable[[nn.Module], None]


@dataclass(frozen=True, slots=True)
class PrunedModule:
    """A smaller copy of a module. ``kept`` says what :func:`compress.networks.slice_channels.cut_module` must leave
    of the original's layers to make the same of it. ``held``: the layers that keep all output channels whatever the
    goal, each with the reason.
    """

    model: nn.Module
    kept: dict[str, list[int]]
    held: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """The target; see :func:`prune_module`."""

    amount: float | None = None
    latency_ms: float | None = None
    peak_ram_bytes: float | None = None
    macs: float | None = None
    criterion: str = "l2"
    cost_aware: bool = True
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.amount is not None and not 0 < self.amount < 1:
            raise InputError(f"prune_module: amount must be between 0 and 1, got {self.amount}")
        if self.criterion not in CRITERIA:
            raise InputError(f"prune_module: criterion must be one of {', '.join(CRITERIA)}, got {self.criterion!r}")
        given = [name for name in ("amount", *_QUANTITIES) if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"prune_module takes one of amount, {', '.join(_QUANTITIES)}, got {' and '.join(given)}")
        if self.limit is not None and not 0 < self.limit < math.inf:
            raise InputError(f"prune_module: {self.quantity} must be a number above 0, got {self.limit}")

    @property
    def quantity(self) -> str:
        """The name of what is limited."""
        return next((name for name in _QUANTITIES if getattr(self, name) is not None), "macs")

    @property
    def limit(self) -> float | None:
        """How much there may be of it; None where an amount is removed."""
        limit: float | None = getattr(self, self.quantity)
        return limit

    def cost(self, layer: LayerProfile) -> float:
        """What a kernel takes of it; of RAM what lives above the limit while it runs."""
        if self.quantity == "peak_ram_bytes":
            assert self.limit is not None
            return max(0.0, layer.live_bytes - self.limit) + _LEAST_OF_LIVE * layer.live_bytes
        return float(layer.macs) if self.quantity == "macs" else layer.microseconds / 1000


def prune_module(
    model: nn.Module,
    example_shape: tuple[int, int, int],
    device: Device,
    *,
    latency_ms: float | None = None,
    peak_ram_bytes: float | None = None,
    macs: float | None = None,
    amount: float | None = None,
    criterion: str = "l2",
    data: Dataset | None = None,
    cost_aware: bool = True,
    precision: str = "fp32",
    steps: int = 1,
    recover: Recover | None = None,
) -> PrunedModule:
    """A copy of a module without the channels and attention heads that matter least; nothing is trained but by
    ``recover``, which is called after each of ``steps``.

    They leave until the module with an input of ``example_shape`` (C, H, W) keeps ``latency_ms``, ``peak_ram_bytes`` or
    ``macs``, as the device's profile predicts in ``precision``, or until ``amount``, a share of all that may leave, has
    left (by default a fifth; a head counts as one). For a limit they leave in the order of importance lost
    for each microsecond, byte or MAC saved, a layer's cost being divided among its channels and looked at again on the
    way; with ``cost_aware=False``, and for an amount, in the order of importance alone. Channels leave in the device's
    multiples.
    What belongs together is found by torch-pruning's dependency graph (2301.12900), see
    :func:`compress.pruning.module_groups.find_groups`.

    ``criterion``: as in :func:`compress.pruning.importance.channel_scores`; ``"taylor"`` looks at images of ``data``.

    Raises:
        InputError: a limit below what the narrowest module takes, which is named; nothing that may leave, with the
            reason of each layer; a module that cannot be followed or traced; ``"taylor"`` without data.

    >>> from hw_profiles import load_device
    >>> net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 2, 3), nn.Flatten(), nn.Linear(32, 2))
    >>> pruned = prune_module(net, (3, 8, 8), load_device("host"), amount=0.5)
    >>> pruned.model[0].out_channels, len(pruned.kept["2:inputs"])
    (32, 32)
    """
    goal = Goal(
        amount=amount, latency_ms=latency_ms, peak_ram_bytes=peak_ram_bytes, macs=macs, criterion=criterion,
        cost_aware=cost_aware, precision=precision,
    )  # fmt: skip
    if steps < 1:
        raise InputError(f"prune_module: steps must be at least 1, got {steps}")
    batches = _batches(goal, data)
    run = _Run(copy.deepcopy(model), example_shape, device, goal)
    for i in range(steps):
        run.narrow((i + 1) / steps, steps - i, batches)
        if recover is not None:
            recover(run.model)
    return PrunedModule(run.model.train(model.training), run.kept, run.held)


class _Run:
    """A module on its way to the goal."""

    def __init__(self, model: nn.Module, shape: tuple[int, int, int], device: Device, goal: Goal) -> None:
        self.model = model
        self.kept: dict[str, list[int]] = {}
        self._shape, self._device, self._goal = shape, device, goal
        found = find_groups(model, shape)
        self._groups, self.held, self._cut_since_found = found.groups, found.held, False
        if not self._groups:
            raise InputError(f"{type(model).__name__}: has no channels that may leave{_listed(self.held)}")
        self._units = sum(group.width for group in self._groups.values())
        self._before = None if goal.limit is None else self._value(self._costs(model))

    def narrow(self, share: float, steps_left: int, batches: Sequence[Batch]) -> None:
        """Remove channels until ``share`` of all that are to leave are gone."""
        if self._cut_since_found:
            self._groups, self._cut_since_found = find_groups(self.model, self._shape).groups, False
        groups = self._groups
        scores = group_scores(self.model, groups, self._goal.criterion, batches)
        if self._before is None:
            amount = _USUAL_AMOUNT if self._goal.amount is None else self._goal.amount
            count = sum(map(len, scores.values())) - self._units * (1 - amount * share)
            chosen = choose_channels(scores, self._multiples(), channels_saved, so_many(scores, count))
        else:
            assert self._goal.limit is not None
            self._check_reachable(scores, steps_left)
            limit = self._before - share * max(0.0, self._before - self._goal.limit)
            chosen = self._within(limit, scores)
        self._keep(kept_channels(groups, self.model, chosen))

    def _within(self, limit: float, scores: Scores) -> dict[str, Tensor]:
        """What stays so that the limit holds."""
        chosen = {name: torch.arange(group.width) for name, group in self._groups.items()}
        costs, at_once = self._costs(self.model), _MOST_AT_ONCE
        while (value := self._value(costs)) > limit:
            start = {name: len(units) for name, units in chosen.items()}
            unit_costs = {name: self._unit_cost(group, costs) / start[name] for name, group in self._groups.items()}
            some = _Some(start, unit_costs, _SHARE_OF_GAP * (value - limit), at_once * sum(start.values()))
            order = some.saved if self._goal.cost_aware else channels_saved
            fewer = choose_channels(scores, self._multiples(), order, some.enough, start=start)
            if all(len(units) == start[name] for name, units in fewer.items()):
                raise self._unreachable(value)
            cheaper = self._costs(self._cut(fewer))
            if self._value(cheaper) < _NEAR * limit and at_once > _LEAST_AT_ONCE:
                at_once /= 4  # too far: the same with smaller steps
            else:
                chosen, costs = fewer, cheaper
        return chosen

    def _check_reachable(self, scores: Scores, steps: int) -> None:
        width = {name: len(score) for name, score in scores.items()}
        for _ in range(steps):
            width = least_widths(width, self._multiples())
        least = {name: score.topk(width[name]).indices.sort().values for name, score in scores.items()}
        assert self._goal.limit is not None
        if (value := self._value(self._costs(self._cut(least)))) > self._goal.limit:
            raise self._unreachable(value)

    def _unreachable(self, least: float) -> InputError:
        return InputError(
            f"prune_module: {self._goal.quantity} must be at least {least:.4g}, which is what the module with the "
            f"fewest channels takes on {self._device.name} in {self._goal.precision}, got {self._goal.limit:g}"
        )

    def _multiples(self) -> dict[str, int]:
        """In units; pieces of a split tensor leave several channels at once."""
        wanted = self._device.channel_multiple
        return {
            name: 1 if group.attention else max(1, wanted // group.channels_each(name))
            for name, group in self._groups.items()
        }

    def _cut(self, chosen: Mapping[str, Tensor]) -> nn.Module:
        return cut_module(copy.deepcopy(self.model), kept_channels(self._groups, self.model, chosen))

    def _costs(self, model: nn.Module) -> Breakdown:
        return layers(trace(model, self._shape).with_precision(self._goal.precision), self._device)

    def _value(self, found: Breakdown) -> float:
        return _QUANTITIES[self._goal.quantity](found)

    def _unit_cost(self, group: Group, found: Breakdown) -> float:
        """What a group's part of its layers costs, were a layer's cost proportional to its channels."""
        modules = dict(self.model.named_modules())
        costs = {name: self._goal.cost(layer) for layer in found.layers for name in layer.ops}
        shares = (
            costs.get(member.layer, 0.0) * len(member.places) / width_of(modules[member.layer], inputs=member.inputs)
            for member in group.members
        )
        return sum(shares)

    def _keep(self, kept: Mapping[str, list[int]]) -> None:
        """Cut the module, and remember it by the numbers of the original."""
        cut_module(self.model, kept)
        for key, numbers in kept.items():
            before = self.kept.get(key)
            self.kept[key] = list(numbers) if before is None else [before[i] for i in numbers]
        self._cut_since_found = True


def _listed(held: Mapping[str, str]) -> str:
    """The layers that stay whole, each with the reason; the first of each reason where they are many."""
    first = {reason: name for name, reason in reversed(list(held.items()))}
    shown = [f"{name}: {reason}" for reason, name in list(first.items())[::-1][:_REASONS_SHOWN]]
    more = len(held) - len(shown)
    return "".join(f"; {each}" for each in shown) + (f"; and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class _Some:
    """A part of what is to be removed, weighted by what each unit's share of its layers costs."""

    start: Mapping[str, int]
    costs: Mapping[str, float]
    wanted: float
    most: float

    def saved(self, width: Mapping[str, int], name: str, narrower: int) -> float:
        """See :data:`compress.pruning.channel_selection.Saved`."""
        return self.costs[name] * (width[name] - narrower)

    def enough(self, width: Mapping[str, int], name: str, narrower: int) -> bool:
        """See :data:`compress.pruning.channel_selection.Enough`."""
        gone = {group: self.start[group] - width[group] for group in width}
        saved = sum(self.costs[group] * count for group, count in gone.items())
        return saved >= self.wanted or sum(gone.values()) >= self.most


def _batches(goal: Goal, data: Dataset | None) -> list[Batch]:
    if goal.criterion != "taylor":
        return []
    if data is None:
        raise InputError("prune_module: criterion 'taylor' looks at images: data must be given")
    split = data.train.some(TAYLOR_IMAGES, 0)
    return [
        (
            torch.from_numpy(data.preprocessing.tensor(np.asarray(split.images[i : i + _BATCH]))),
            torch.from_numpy(split.labels[i : i + _BATCH]),
        )
        for i in range(0, len(split), _BATCH)
    ]


def pruned_module(artifact: Artifact, stage: Prune, context: Context) -> Artifact:
    """The artifact without the channels that matter least, trained further with the unpruned module as teacher.
    names the layers that cannot become narrower, each with the reason; the output and frozen layers are among them.

    Raises:
        InputError: an ONNX file, or a limit that cannot be reached.
    """
    training = stage.training(artifact, context)
    found = prune_module(
        artifact.model(),
        artifact.source.input_shape,
        context.device,
        data=context.data,
        recover=training,
        **stage.of_modules(),
    )
    smaller = replace(artifact, source=_narrower(artifact.source, found.model, found.kept))
    metrics = {} if training is None else training.metrics()
    return replace(smaller.with_model(found.model), metrics={**metrics, "held": dict(found.held)})


def _narrower(source: Source, module: nn.Module, kept: Mapping[str, Sequence[int]]) -> Source:
    """The source with the channels of the network as it was made that are left."""
    if isinstance(source, GivenModule):
        return replace(source, module=module)
    assert isinstance(source, Timm)
    before = source.kept
    now = {
        name: tuple(before[name][i] for i in channels) if name in before else tuple(channels)
        for name, channels in kept.items()
    }
    return replace(source, kept={**before, **now})
