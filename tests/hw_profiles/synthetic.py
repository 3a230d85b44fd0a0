"""A device that never was: what it costs is known, so what is fitted to its times can be held against it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from hw_profiles import Device, Workload
from hw_profiles.cost_model.features import QUANTITIES, SCALES, CostFeatures, family, network_features
from hw_profiles.cost_model.kernel_costs import CostTable, KernelCost
from hw_profiles.devices.machine import conditions
from hw_profiles.measurement.random_networks import is_attention, micro_network
from hw_profiles.runtimes.fusion import fuse

COEFFICIENTS = {
    "start": 1.0, "nodes": 0.3, "nodes_past_20": 0.1, "nodes_past_60": 0.2, "nodes_past_200": 0.1, "mvalues": 100.0, "mmacs": 10.0, "mmacs_in_rows": 2.0, "mpasses": 30.0,
    "input_mb": 10.0, "output_mb": 20.0, "weight_mb": 30.0, "mpositions": 5.0, "mrest": 5.0, "mmacs_half": 10.0,
    "mmacs_rest": 20.0, "mtaps": 5.0, "kchannels": 1.0, "mrows": 50.0,
}  # fmt: skip


def features_of(workload: Workload) -> tuple[CostFeatures, ...]:
    return tuple(network_features(workload, fuse(workload)))


def micro_features(precision: str, seeds: Iterable[int]) -> list[tuple[CostFeatures, ...]]:
    """The features of the networks that can be written in a precision."""
    written = (seed for seed in seeds if precision == "fp32" or not is_attention(seed))
    return [features_of(micro_network(seed).with_precision(precision)) for seed in written]


def true_costs(networks: Sequence[Sequence[CostFeatures]], seed: int = 0) -> dict[str, KernelCost]:
    """Every kind has its own cost level, and corrections around three of the coordinates that the networks have."""
    draw = np.random.default_rng(seed)
    costs = {}
    for kind in sorted({features.kind for all_features in networks for features in all_features}):
        locations = sorted(
            {features.coordinates for all_features in networks for features in all_features if features.kind == kind}
        )
        chosen = [locations[i] for i in draw.integers(len(locations), size=3)] if SCALES[family(kind)] else []
        level = draw.uniform(0.7, 1.4)
        costs[kind] = KernelCost(
            coefficients=tuple(COEFFICIENTS[name] * level for name in QUANTITIES[family(kind)]),
            points=tuple(chosen),
            weights=tuple(draw.normal(0, 2, size=len(chosen))),
        )
    return costs


def microseconds(costs: dict[str, KernelCost], networks: Sequence[Sequence[CostFeatures]]) -> np.ndarray:
    table = CostTable(costs)
    return np.array([table.total(all_features)[0] for all_features in networks])


def device_of(
    costs: dict[str, dict[str, KernelCost]], *, spread: float = 0.05, measurable: bool = True, cpu: str | None = None
) -> Device:
    """A device with these costs, measured here, or on a ``cpu`` of that name."""
    here = conditions(1)
    return Device(
        name="made_up",
        description="a device that never was",
        runtime="ort",
        threads=1,
        channel_multiple=16,
        measurable=measurable,
        source="these tests",
        conditions=here if cpu is None else {**here, "cpu": cpu},
        spread=dict.fromkeys(costs, spread),
        costs=costs,
    )
