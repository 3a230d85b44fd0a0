"""The stage Prune: structured pruning of channels and blocks; the result is a smaller Arch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from compress.argument_checks import is_number, is_whole
from compress.distillation.guided_training import GuidedTraining, teacher_or_none
from compress.networks.artifact import Artifact, check_trainable
from compress.pruning.block_removal import without_weakest_block
from compress.pruning.channel_selection import (
    channels_saved,
    choose_channels,
    least_widths,
    regrow,
    so_many,
)
from compress.pruning.importance import CRITERIA, TAYLOR_IMAGES, Batch, Scores, channel_scores, taylor_batches
from compress.pruning.prunable_network import PrunableNetwork, prunable_network, pruned_artifact
from compress.pruning.width_costs import COST_NAMES, CostModel
from compress.stage_interface import Context
from compress.training.faults import logits_of
from compress.training.loop import Recipe
from compress.training.random_generators import seeded
from hw_profiles.devices.device import Device
from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import check_precision
from hw_profiles.profiling import profile
from hw_profiles.spelling_suggestions import check_one_of

_USUAL_AMOUNT = 0.2
_LOOKS = {"taylor": 4}  # in each step: what the loss owes to a channel depends on which others are still there
_MOST_STEPS = 1000  # about so many are taken from the whole network to the narrowest

Recover = Callable[[nn.Module], object]  # trains the module in place


@dataclass(frozen=True, kw_only=True, slots=True)
class Prune:
    """Remove channels until a limit is met, then fine-tune with the unpruned network as teacher.

    Limits are ``latency_ms``, ``peak_ram_bytes`` and ``macs``, as estimated for the device in ``precision``; without a
    limit, ``amount`` is the fraction of channels to remove (default 0.2). Channels are removed in order of importance
    lost per microsecond, byte or MAC saved; with ``cost_aware=False``, and for an ``amount``, in order of importance
    alone. ``criterion``: see :func:`compress.pruning.importance.channel_scores`. They are removed in multiples of the
    ``channel_multiple`` of the device, so that no lane of its vector unit is idle, and channels are restored if the
    limits allow (:func:`compress.pruning.channel_selection.regrow`).

    With ``steps`` they are removed in several steps, among which ``recipe`` is divided: the network is fine-tuned after
    each step, and the next channels are chosen on the result (1611.06440); ``"taylor"`` also updates its scores within
    a step. ``recipe`` None disables fine-tuning. Before channel pruning, up to ``blocks`` residual blocks are removed
    entirely, first those that raise the loss least per microsecond saved.

    Raises:
        InputError: when called: a limit below what the least network takes, which is named; an artifact that has been
            quantized or whose weights have formats of their own.

    >>> Prune(latency_ms=0.5).limits()
    {'latency_ms': 0.5}
    """

    name: ClassVar[str] = "prune"
    lossy: ClassVar[bool] = True

    amount: float | None = None
    latency_ms: float | None = None
    peak_ram_bytes: float | None = None
    macs: float | None = None
    criterion: str = "taylor"
    cost_aware: bool = True
    blocks: int = 0
    steps: int = 1
    precision: str = "fp32"
    recipe: Recipe | None = Recipe(epochs=8, learning_rate=0.03)

    def __post_init__(self) -> None:
        if self.amount is not None and not is_number(self.amount, 0, 1):
            raise InputError(f"Prune.amount must be between 0 and 1, got {self.amount!r}")
        for name, limit in self.limits().items():
            if not is_number(limit, 0):
                raise InputError(f"Prune.{name} must be a number above 0, got {limit!r}")
        if self.amount is not None and self.limits():
            raise InputError(f"Prune takes an amount or limits, got {self.amount} and {self.limits()}")
        check_one_of("Prune.criterion", self.criterion, CRITERIA)
        if not is_whole(self.steps, 1) or not is_whole(self.blocks, 0):
            raise InputError(
                f"Prune.steps must be at least 1 and blocks at least 0, got {self.steps} and {self.blocks}"
            )
        check_precision(self.precision)

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: limit for name in COST_NAMES if (limit := getattr(self, name)) is not None}

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """A smaller Arch, timm model or module with the weights that stay, trained on; the same artifact where no
        multiple can leave. ``metrics["held"]`` names the layers of a module that cannot become narrower, each with the
        reason; the output and frozen layers are among them."""
        check_trainable("Prune", artifact)
        training = self.training(artifact, context)
        shallower = self._shallower(artifact, context)
        network = prunable_network(shallower)
        if training is not None:
            _check_learns(artifact, context)  # before channels leave that only a head for training reads
        batches = partial(taylor_batches, context.data.train, artifact.preprocessing, context.seed)
        smaller = self.narrow(network, context.device, batches, training, shallower is not artifact)
        metrics = {} if training is None else training.metrics()
        held = {"held": dict(network.held)} if network.held else {}
        return replace(pruned_artifact(shallower, smaller), metrics={**metrics, **held})

    def narrow(
        self,
        network: PrunableNetwork,
        device: Device,
        batches: Callable[[], Iterable[Batch]],
        recover: Recover | None = None,
        is_changed: bool = False,
    ) -> PrunableNetwork:
        """The network with fewer channels; ``recover`` trains it after each step in which it changed, the first one
        where it ``is_changed`` already. ``batches`` gives the images that ``"taylor"`` looks at."""
        limits = self.limits()
        cost_model = CostModel(network, device, self.precision, limits)
        before = {name: cost_model.value(name, network.width) for name in limits}
        run = _Run(self, cost_model, device, batches, before, sum(network.width.values()))
        if limits:
            run.check_reachable(network)
        for i in range(self.steps):
            narrower = run.narrower(network, i)
            if recover is not None and (is_changed or narrower is not network):
                recover(narrower.model)
            is_changed, network = False, narrower
        run.check_kept(network)
        return network

    def _shallower(self, artifact: Artifact, context: Context) -> Artifact:
        images = context.data.train.some(TAYLOR_IMAGES, context.seed)
        for _ in range(self.blocks):
            now = profile(artifact.source, context.device, self.precision) if self.limits() else None
            if now is not None and all(getattr(now, name) <= limit for name, limit in self.limits().items()):
                break
            smaller = without_weakest_block(artifact, images, context.device, self.precision)
            if smaller is None:
                break
            artifact = smaller
        return artifact

    def training(self, artifact: Artifact, context: Context) -> GuidedTraining | None:
        """The trainings after each of the steps, with the current artifact as teacher; none without a recipe."""
        if self.recipe is None:
            return None
        teacher = teacher_or_none(artifact.model(), artifact.preprocessing, context.data)
        return GuidedTraining(
            data=context.data, recipe=self.recipe, teacher=teacher, seed=context.seed, parts=self.steps,
            checkpoint=context.checkpoint, report=context.report,
        )  # fmt: skip


def _check_learns(artifact: Artifact, context: Context) -> None:
    images = artifact.preprocessing.tensor(context.data.train.images[:2])
    with seeded(context.seed):
        logits_of(artifact.model().train(), torch.from_numpy(images))


@dataclass(frozen=True, slots=True)
class _Run:
    """One pruning: ``before`` are the values of what is limited, ``units`` how many there were."""

    stage: Prune
    cost_model: CostModel
    device: Device
    batches: Callable[[], Iterable[Batch]]
    before: Mapping[str, float]
    units: int

    def narrower(self, network: PrunableNetwork, done: int) -> PrunableNetwork:
        """The network after one more of the steps."""
        looks = _LOOKS.get(self.stage.criterion, 1)
        multiples = network.multiples(self.device.channel_multiple)
        least = least_widths(network.width, multiples)
        kept = {group: torch.arange(count) for group, count in network.width.items()}
        first: Scores = {}
        for i in range(looks):
            share = (done + (i + 1) / looks) / self.stage.steps
            scores = self._scores(network.without(kept))
            first = first or scores
            if self.before:
                self.cost_model.limits = self._limits_at(share)
                chosen = self._within(scores, multiples, least)
            else:
                count = sum(map(len, scores.values())) - self.units * (1 - self._amount() * share)
                chosen = choose_channels(scores, multiples, channels_saved, so_many(scores, count), least=least)
            kept = {group: kept[group][indices] for group, indices in chosen.items()}
        if self.before:
            kept = regrow(kept, first, multiples, lambda width: not self.cost_model.broken(width))
        return network.without(kept)

    def check_reachable(self, network: PrunableNetwork) -> None:
        """Before anything is trained, whether the steps together can come to where the limits hold.

        The narrowest network is not always the cheapest: odd widths cost a runtime copies. So all are looked at that
        the order of importance comes through.
        """
        least, multiples = network.width, network.multiples(self.device.channel_multiple)
        for _ in range(self.stage.steps):
            least = least_widths(least, multiples)
        self.cost_model.limits = self.stage.limits()
        kept = self._within(self._scores(network), multiples, least)
        for name in self.cost_model.broken({group: len(indices) for group, indices in kept.items()}):
            raise InputError(
                f"Prune.{name} must be at least {self.cost_model.least(name):.6g}, the smallest value that pruning can "
                f"reach on {self.device.name} in {self.stage.precision}, got {self.stage.limits()[name]:g}"
            )

    def check_kept(self, network: PrunableNetwork) -> None:
        """What was chosen after a training is not what was foreseen."""
        self.cost_model.limits = self.stage.limits()
        for name in self.cost_model.broken(network.width):
            raise InputError(
                f"Prune.{name} must be higher, or steps must differ from {self.stage.steps}: the channels left "
                f"after the last step take {self.cost_model.value(name, network.width):.6g}, got "
                f"{self.stage.limits()[name]:g}"
            )

    def _limits_at(self, share: float) -> dict[str, float]:
        """The limits at which a share of the total saving is reached."""
        limits = self.stage.limits()
        return {name: value - share * max(0.0, value - limits[name]) for name, value in self.before.items()}

    def _amount(self) -> float:
        return _USUAL_AMOUNT if self.stage.amount is None else self.stage.amount

    def _within(self, scores: Scores, multiples: Mapping[str, int], least: Mapping[str, int]) -> dict[str, Tensor]:
        """What stays where the limits hold, or at the end of the way, of which a large network takes longer steps."""
        room = {group: (len(score) - least[group]) // multiples[group] for group, score in scores.items()}
        longer = max(1, round(sum(room.values()) / _MOST_STEPS))
        return choose_channels(
            scores,
            {group: multiple * max(1, min(longer, room[group] // 4)) for group, multiple in multiples.items()},
            self.cost_model.saved_of_limits if self.stage.cost_aware else channels_saved,
            lambda width, group, narrower: not self.cost_model.broken(width),
            least=least,
        )

    def _scores(self, network: PrunableNetwork) -> Scores:
        batches = self.batches() if self.stage.criterion == "taylor" else ()
        return channel_scores(network.model, network.groups, self.stage.criterion, batches)
