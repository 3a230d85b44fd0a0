"""The tolerance ladder: what is tried, the cheapest first, when a stage loses more accuracy than is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from compress.clustering.cluster import MOST_CLUSTERS, Cluster
from compress.networks.artifact import Artifact
from compress.pruning.prune import Prune
from compress.quantization.int8.ptq import Quantize
from compress.quantization.int8.qat import QuantizeAware
from compress.quantization.int8.weight_levels import MOST, Levels
from compress.quantization.mixed_precision.mixed_precision import MixedPrecision
from compress.sparsity.sparsify import Sparsify
from compress.stage_interface import Context, Stage
from compress.training.recipe import Recipe

_GENTLER = (0.75, 0.5, 0.25)
_MORE_CLUSTERS = (2, 4, 16)
_MORE_LEVELS = (2, 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One thing to try in place of a stage, from the same network: another ``stage``, and a ``name`` for people."""

    name: str
    stage: Stage


class Ladder(Protocol):
    """The rungs below a stage, the cheapest first; ``seconds`` is how long they may take together, None: no limit."""

    @property
    def seconds(self) -> float | None:
        """How long the rungs of one stage may take together."""

    def __call__(self, stage: Stage, artifact: Artifact, context: Context) -> Sequence[Rung]:
        """What may be tried in place of ``stage`` on ``artifact``, to lose no more points than the context allows."""

    def faster(self, stage: Stage, context: Context) -> Sequence[Rung]:
        """What may be tried in place of a ``stage`` that made the network slower."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Ladder:
    """For int8: more levels of weights, all calibrators, equalization, bias correction, AdaRound, the most sensitive
    layers in float, and training in integers with the float network as teacher (Nagel et al., 2106.08295, recommend
    this order).

    What the stage tries by itself is left out. Layers in float are for networks that have no several inputs; the
    training (``qat``; None leaves it out) needs labels and a network that is no ONNX file.
    """

    qat: Recipe | None = QuantizeAware().recipe
    seconds: float | None = None

    def __call__(self, stage: Stage, artifact: Artifact, context: Context) -> Sequence[Rung]:
        """None for another stage than int8."""
        if not isinstance(stage, Quantize):
            return ()
        tries: list[tuple[str, dict[str, Any]]] = [
            *((f"{count} levels", {"levels": count}) for count in _more_levels(stage.levels)),
            ("all levels", {"levels": None}),
            ("calibrators", {"calibration": None}),
            ("equalization", {"equalize": None}),
            ("bias correction", {"bias_correction": None}),
            ("AdaRound", {"adaround": True}),
        ]
        rungs, current = [], stage
        for name, wider in tries:
            changed = replace(current, **wider)
            if changed != current:
                rungs.append(Rung(name=name, stage=changed))
                current = changed
        rungs.append(
            Rung(name="sensitive layers in float", stage=MixedPrecision(max_accuracy_drop=context.max_accuracy_drop))
        )
        trainable = artifact.network.file is None and context.data.train.is_labeled
        if self.qat is not None and trainable:
            rungs.append(Rung(name="training in int8", stage=QuantizeAware(recipe=self.qat)))
        return tuple(rungs)

    def faster(self, stage: Stage, context: Context) -> Sequence[Rung]:
        """Only the layers in int8 that it makes faster on the device."""
        if not isinstance(stage, Quantize):
            return ()
        mixed = MixedPrecision(max_accuracy_drop=context.max_accuracy_drop, only_faster=True)
        return (Rung(name="only layers that int8 makes faster", stage=mixed),)


@dataclass(frozen=True, kw_only=True, slots=True)
class FullLadder:
    """That of int8, and for stages with a strength weaker ones: fewer channels, fewer zeros, more shared values."""

    int8: Int8Ladder = Int8Ladder()

    @property
    def seconds(self) -> float | None:
        """As for int8."""
        return self.int8.seconds

    def __call__(self, stage: Stage, artifact: Artifact, context: Context) -> Sequence[Rung]:
        """The rungs for any stage; none for one that has no strength."""
        if isinstance(stage, Quantize):
            return self.int8(stage, artifact, context)
        return [Rung(name=_strength(weaker), stage=weaker) for weaker in _weaker(stage)]

    def faster(self, stage: Stage, context: Context) -> Sequence[Rung]:
        """As for int8."""
        return self.int8.faster(stage, context)


def _weaker(stage: Stage) -> list[Stage]:
    if isinstance(stage, Prune) and stage.amount is not None:
        return [replace(stage, amount=share * stage.amount) for share in _GENTLER]
    if isinstance(stage, Sparsify) and not isinstance(stage.amount, Mapping) and not stage.pattern:
        return [replace(stage, amount=share * stage.amount) for share in _GENTLER]
    if isinstance(stage, Cluster) and isinstance(stage.clusters, int) and stage.bits is None:
        counts = [stage.clusters * times for times in _MORE_CLUSTERS]
        return [replace(stage, clusters=count) for count in counts if count <= MOST_CLUSTERS]
    return []


def _more_levels(levels: Levels | None) -> list[int]:
    return [count for times in _MORE_LEVELS if isinstance(levels, int) and (count := times * levels) < MOST]


def _strength(stage: Stage) -> str:
    if isinstance(stage, Cluster):
        return f"{stage.clusters} clusters"
    assert isinstance(stage, Prune | Sparsify)
    return f"amount {stage.amount:g}"
