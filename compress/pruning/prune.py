"""The stage Prune: structured pruning of channels and blocks; the result is a smaller Arch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from compress.argument_checks import is_number, is_whole
from compress.distillation.guided_training import GuidedTraining, teacher_or_none
from compress.networks.artifact import Artifact, check_trainable
from compress.pruning.block_removal import without_weakest_block
from compress.pruning.channel_groups import prunable_groups, pruned_arch, pruned_weights
from compress.pruning.channel_selection import (
    channels_saved,
    choose_channels,
    least_widths,
    regrow,
    select_channels,
    so_many,
)
from compress.pruning.importance import CRITERIA, TAYLOR_IMAGES, Scores, channel_scores
from compress.pruning.width_costs import COST_NAMES, CostModel
from compress.stage_interface import Context
from compress.training.loop import Recipe
from hw_profiles.errors import InputError
from hw_profiles.network.channel_groups import channel_groups
from hw_profiles.network.tensor_formats import check_precision
from search_spaces.arch import Arch

__all__ = ["Prune", "remove_channels", "select_channels"]

_USUAL_AMOUNT = 0.2
_LOOKS = {"taylor": 4}  # in each step: what the loss owes to a channel depends on which others are still there


@dataclass(frozen=True, kw_only=True, slots=True)
class Prune:
    """Remove channels until a limit holds, then train further, with the unpruned network as teacher.

    Limits are ``latency_ms``, ``peak_ram_bytes`` and ``macs``, as the device's profile predicts them in ``precision``,
    or else ``amount``, the share of all channels to leave (a fifth where nothing is said). Channels leave in the order
    of the importance lost for each microsecond, byte or MAC that their leaving saves; with ``cost_aware=False``, and
    for an ``amount``, in the order of importance alone. ``criterion``: see
    :func:`compress.pruning.importance.channel_scores`. They leave in multiples of the device's
    (``channel_multiple``), so that no lane of its vector unit is idle, and those that the limits turn out to have
    room for come back (:func:`compress.pruning.channel_selection.regrow`).

    With ``steps`` they leave in so many parts, and the ``recipe`` is divided among them: the network recovers after
    each, and the next ones are chosen on what it became (1611.06440); ``"taylor"`` also looks again within a step.
    ``recipe`` None trains nothing. Before the channels up to ``blocks`` residual blocks leave whole, those first that
    raise the loss least for each microsecond saved.

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
        if self.criterion not in CRITERIA:
            raise InputError(f"Prune.criterion must be one of {', '.join(CRITERIA)}, got {self.criterion!r}")
        if not is_whole(self.steps, 1) or not is_whole(self.blocks, 0):
            raise InputError(
                f"Prune.steps must be at least 1 and blocks at least 0, got {self.steps} and {self.blocks}"
            )
        check_precision(self.precision)

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: limit for name in COST_NAMES if (limit := getattr(self, name)) is not None}

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """A smaller Arch with the weights that stay, trained on; the same artifact where no multiple can leave. Of
        another source than an Arch the module is pruned, see :func:`compress.pruning.module_pruning.prune_module`."""
        check_trainable("Prune", artifact)
        if not isinstance(artifact.source, Arch):
            from compress.pruning.module_pruning import pruned_module

            return pruned_module(artifact, self, context)
        pruned = self._shallower(artifact, context)
        before = self._values(pruned, context)
        if self.limits():
            self._check_reachable(pruned, context)
        training, trained = self.training(artifact, context), artifact
        for i in range(self.steps):
            pruned = self._narrower(pruned, before, i, context)
            if pruned.source != trained.source:
                model = pruned.model()
                if training is not None:
                    training(model)
                trained = pruned = pruned.with_model(model)
        self._check_kept(pruned, context)
        return replace(pruned, metrics={} if training is None else training.metrics())

    def _shallower(self, artifact: Artifact, context: Context) -> Artifact:
        images = context.data.train.some(TAYLOR_IMAGES, context.seed)
        for _ in range(self.blocks):
            if self.limits() and not self._cost_model(artifact, self.limits(), context).broken():
                break
            smaller = without_weakest_block(artifact, images, context.device, self.precision)
            if smaller is None:
                break
            artifact = smaller
        return artifact

    def _narrower(self, artifact: Artifact, before: Mapping[str, float], done: int, context: Context) -> Artifact:
        """The artifact after one more of the steps; ``before``: the values before any channel left."""
        multiple, looks = context.device.channel_multiple, _LOOKS.get(self.criterion, 1)
        groups = prunable_groups(artifact.arch)
        width = {group: groups.width[group] for group in groups.prunable()}
        least = least_widths(width, multiple)
        kept = {group: torch.arange(count) for group, count in width.items()}
        first: Scores = {}
        for i in range(looks):
            share = (done + (i + 1) / looks) / self.steps
            narrower = remove_channels(artifact, kept)
            scores = self._scores(narrower, context)
            first = first or scores
            cost_model = self._cost_model(narrower, self._limits_at(share, before), context)
            if cost_model.limits:
                chosen = self._within(cost_model, scores, multiple, least)
            else:
                count = sum(map(len, scores.values())) - before["channels"] * (1 - self._amount() * share)
                chosen = choose_channels(scores, multiple, channels_saved, so_many(scores, count), least=least)
            kept = {group: kept[group][indices] for group, indices in chosen.items()}
        if cost_model.limits:
            kept = regrow(kept, first, multiple, lambda width: not cost_model.broken(width))
        return remove_channels(artifact, kept)

    def _limits_at(self, share: float, before: Mapping[str, float]) -> dict[str, float]:
        """The limits at which a share of the total saving is reached."""
        return {name: before[name] - share * max(0.0, before[name] - last) for name, last in self.limits().items()}

    def _amount(self) -> float:
        return _USUAL_AMOUNT if self.amount is None else self.amount

    def _values(self, artifact: Artifact, context: Context) -> dict[str, float]:
        groups, cost_model = prunable_groups(artifact.arch), self._cost_model(artifact, {}, context)
        values = {name: cost_model.value(name, cost_model.width) for name in self.limits()}
        return {**values, "channels": sum(groups.width[group] for group in groups.prunable())}

    def _check_reachable(self, artifact: Artifact, context: Context) -> None:
        """Before anything is trained, whether the steps together can come to where the limits hold.

        The narrowest network is not always the cheapest: odd widths cost a runtime copies. So all are looked at that
        the order of importance comes through.
        """
        cost_model, multiple = self._cost_model(artifact, self.limits(), context), context.device.channel_multiple
        groups = prunable_groups(artifact.arch)
        least = {group: groups.width[group] for group in groups.prunable()}
        for _ in range(self.steps):
            least = least_widths(least, multiple)
        kept = self._within(cost_model, self._scores(artifact, context), multiple, least)
        for name in cost_model.broken({group: len(indices) for group, indices in kept.items()}):
            raise InputError(
                f"Prune.{name} must be at least {cost_model.least(name):.6g}, the least found on the way to the "
                f"fewest channels on {context.device.name} in {self.precision}, got {self.limits()[name]:g}"
            )

    def _check_kept(self, artifact: Artifact, context: Context) -> None:
        """What was chosen after a training is not what was foreseen."""
        cost_model = self._cost_model(artifact, self.limits(), context)
        for name in cost_model.broken():
            raise InputError(
                f"Prune.{name} must be higher, or steps another number than {self.steps}: the channels left after the "
                f"last step take {cost_model.value(name, cost_model.width):.6g}, got {self.limits()[name]:g}"
            )

    def _within(
        self, cost_model: CostModel, scores: Scores, multiple: int, least: Mapping[str, int] | None = None
    ) -> dict[str, Tensor]:
        """What stays where the limits hold, or at the end of the way."""
        return choose_channels(
            scores,
            multiple,
            cost_model.saved_of_limits if self.cost_aware else channels_saved,
            lambda width, group, narrower: not cost_model.broken(width),
            least=least,
        )

    def _scores(self, artifact: Artifact, context: Context) -> Scores:
        groups = prunable_groups(artifact.arch)
        return channel_scores(artifact, groups, self.criterion, context.data.train, context.seed)

    def _cost_model(self, artifact: Artifact, limits: Mapping[str, float], context: Context) -> CostModel:
        return CostModel(artifact.arch, context.device, self.precision, limits)

    def of_modules(self) -> dict[str, Any]:
        """The arguments of :func:`compress.pruning.module_pruning.prune_module` that say the same.

        Raises:
            InputError: what only an Arch can.
        """
        if self.blocks:
            raise InputError(f"Prune.blocks needs a network of blocks (Arch), got {self.blocks} for another module")
        names = ("amount", *COST_NAMES, "criterion", "cost_aware", "precision", "steps")
        return {name: getattr(self, name) for name in names}

    def training(self, artifact: Artifact, context: Context) -> GuidedTraining | None:
        """The trainings after each of the steps, with the current artifact as teacher; none without a recipe."""
        if self.recipe is None:
            return None
        teacher = teacher_or_none(artifact.model(), artifact.preprocessing, context.data)
        return GuidedTraining(
            data=context.data, recipe=self.recipe, teacher=teacher, seed=context.seed, parts=self.steps,
            checkpoint=context.checkpoint, report=context.report,
        )  # fmt: skip


def remove_channels(artifact: Artifact, kept: Mapping[str, Tensor]) -> Artifact:
    """The artifact without the other channels; its outputs are those of the original with their activations at zero."""
    workload = artifact.arch.workload()
    groups = channel_groups(workload)
    return replace(
        artifact,
        source=pruned_arch(artifact.arch, groups, kept),
        weights=pruned_weights(artifact.weights, workload, groups, kept),
    )
