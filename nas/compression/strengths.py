"""The plans that ``nas compress`` makes itself, from gentle to strong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from compress.clustering.cluster import Cluster
from compress.distillation.distill import Distill
from compress.fnz.encode_stage import Encode
from compress.networks.artifact import Artifact
from compress.pruning.prune import Prune
from compress.quantization.int8.ptq import Quantize
from compress.quantization.int8.qat import QuantizeAware
from compress.sparsity.sparsify import Sparsify
from compress.stage_interface import Stage
from compress.stages.plan_file import Plan
from compress.stages.tolerance_ladder import FullLadder, Int8Ladder
from compress.training.recipe import Recipe

PLAIN_INT8 = Quantize(calibration="minmax", equalize="none", bias_correction=False, adaround=False)
"""The cheapest int8, at which the ladder begins."""
_MARGIN = 0.97  # of a limit: what is foreseen is not quite what is measured
_QAT_RATE, _PRUNE_RATE, _CLUSTER_RATE, _DISTILL_RATE = 0.02, 0.3, 0.1, 0.5  # parts of the learning rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Strength:
    """How much a plan takes: the share of channels, the share of zeros, and the number of values of a weight; None
    leaves the stage out. ``rough_share``: what it leaves of the coded bytes of a network in float32, roughly. Zeros are
    set where weights are weakest, or ``by_sensitivity``, so that all layers cost as much loss. ``to_limits``: as many
    channels leave as the limits need, in the precision that is deployed, in place of a share."""

    rough_share: float = 1.0
    channels: float | None = None
    zeros: float | None = None
    clusters: int | None = None
    int8: bool = True
    by_sensitivity: bool = False
    to_limits: bool = False

    @property
    def label(self) -> str:
        """A name for people and folders.

        >>> Strength(channels=0.2, zeros=0.5).label, Strength(clusters=16, int8=False).label
        ('channel pruning 0.2, sparsity 0.5, int8', 'clusters 16, float32')
        """
        parts = [
            f"{named} {value:g}"
            for name, named in (("channels", "channel pruning"), ("zeros", "sparsity"), ("clusters", "clusters"))
            if (value := getattr(self, name)) is not None
        ]
        parts += ["sparsity allocated by sensitivity"] * self.by_sensitivity + [
            "channels pruned to the limits"
        ] * self.to_limits
        return ", ".join([*parts, "int8" if self.int8 else "float32"])


STRENGTHS = (
    Strength(rough_share=0.27),
    Strength(rough_share=0.19, zeros=0.3),
    Strength(rough_share=0.11, channels=0.2, zeros=0.5),
    Strength(rough_share=0.055, channels=0.3, zeros=0.7, clusters=64),
    Strength(rough_share=0.035, channels=0.5, zeros=0.8, clusters=32),
    Strength(rough_share=0.02, channels=0.6, zeros=0.9, clusters=16),
    Strength(rough_share=0.012, channels=0.7, zeros=0.95, clusters=16),
)
USUAL = 2
"""The place of the strength for which no size is asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainings:
    """How the stages of a plan train: the epochs and the learning rate of the whole network, and the seconds of each
    stage where time is limited."""

    epochs: float
    learning_rate: float
    seconds: float | None = None

    def recipe(self, part: float) -> Recipe:
        """A recipe with a part of the learning rate."""
        return Recipe(epochs=self.epochs, learning_rate=part * self.learning_rate, seconds=self.seconds)

    def ladder(self, seconds: float | None) -> FullLadder:
        """The ladder whose rungs train like that."""
        qat = replace(QuantizeAware().recipe, epochs=self.epochs, seconds=self.seconds)
        return FullLadder(
            int8=Int8Ladder(qat=replace(qat, learning_rate=_QAT_RATE * self.learning_rate), seconds=seconds)
        )


def plan_of(
    strength: Strength,
    artifact: Artifact,
    trainings: Trainings,
    *,
    teacher: bool = False,
    limits: Mapping[str, float] = MappingProxyType({}),
) -> Plan:
    """The plan of a strength for a network. For an ONNX file what must train is left out: zeros and shared values are
    set without training, and in int8 integers are fitted to as many levels instead of being shared. ``limits``: of
    latency and memory, for a strength that prunes to them.

    >>> from compress.networks.as_artifact import as_artifact
    >>> from search_spaces import preset
    >>> plan_of(STRENGTHS[3], as_artifact(preset("resnet8"), None), Trainings(epochs=1, learning_rate=0.1)).names
    ('prune', 'sparsify', 'int8', 'cluster', 'encode')
    """
    trains = artifact.network.file is None
    stages: list[Stage] = []
    if teacher and trains:
        stages.append(Distill(recipe=trainings.recipe(_DISTILL_RATE)))
    if strength.to_limits and trains:
        kept = {name: _MARGIN * limit for name, limit in limits.items()}
        stages.append(
            Prune(
                latency_ms=kept.get("latency_ms"),
                peak_ram_bytes=kept.get("peak_ram_bytes"),
                precision="int8" if strength.int8 else "fp32",
                steps=2,
                recipe=trainings.recipe(_PRUNE_RATE),
            )
        )
    elif strength.channels is not None and trains:
        stages.append(Prune(amount=strength.channels, steps=2, recipe=trainings.recipe(_PRUNE_RATE)))
    if strength.zeros is not None:
        schedule = "gradual" if trains else "iterative"
        recipe = trainings.recipe(_PRUNE_RATE) if trains else None
        scope = "sensitivity" if strength.by_sensitivity and trains else "global"
        stages.append(Sparsify(amount=strength.zeros, scope=scope, schedule=schedule, recipe=recipe))
    fitted = replace(PLAIN_INT8, least_squares=True, levels=strength.clusters)
    untrained_levels = strength.int8 and strength.clusters is not None and not trains
    if strength.int8:
        stages.append(fitted if untrained_levels else PLAIN_INT8)
    if strength.clusters is not None and not untrained_levels:
        recipe = trainings.recipe(_CLUSTER_RATE) if trains else None
        stages.append(Cluster(clusters=strength.clusters, recipe=recipe))
    return Plan(stages=(*stages, Encode()))
