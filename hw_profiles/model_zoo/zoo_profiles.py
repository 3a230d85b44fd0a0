"""Estimates the costs of all stored networks on a device at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hw_profiles.cost_model.features import CostFeatures
from hw_profiles.cost_model.kernel_costs import CostTable
from hw_profiles.devices.device import Device
from hw_profiles.devices.footprint import runtime_bytes
from hw_profiles.errors import InputError
from hw_profiles.latency.estimate import Latency, latency_from
from hw_profiles.model_zoo.zoo_features import ZooFeatures, zoo_features
from hw_profiles.network.tensor_formats import check_precision
from hw_profiles.profiling import Profile, timing_fields

Network = tuple[str, int]
"""An architecture of timm, and the side of the image that it sees."""


def zoo_profiles(device: Device, precision: str = "fp32") -> Mapping[Network, Profile]:
    """What ``profile("timm:" + model, device, precision, input_shape=(3, size, size))`` estimates for a published model
    of every stored network, in about a second for all of them. One that the device has no costs for is left out.

    Raises:
        InputError: an unknown precision, or one that the device has no costs in.

    >>> from hw_profiles import load_device
    >>> found = zoo_profiles(load_device("host"), "int8")
    >>> found["resnet18", 224].macs
    1814073344
    """
    key = ("zoo", check_precision(precision))
    if key not in device.memo:
        device.memo[key] = _profiles(device, precision)
    found: Mapping[Network, Profile] = device.memo[key]
    return found


def _profiles(device: Device, precision: str) -> Mapping[Network, Profile]:
    zoo = zoo_features(device.runtime, precision)
    costs = _costs(zoo.features, device.table(precision))
    microseconds, doubts = (zoo.totals(column) for column in costs.T)
    found = {}
    for i in np.flatnonzero(np.isfinite(microseconds)).tolist():
        latency = latency_from(float(microseconds[i]), float(doubts[i]), device, precision)
        found[zoo.architectures[i], int(zoo.image_sizes[i])] = _profile(zoo, i, latency, device)
    return found


def _costs(all_features: tuple[CostFeatures, ...], table: CostTable) -> NDArray[np.float64]:
    """Microseconds and doubt of each feature (n, 2): not a number where the table has nothing like its kind."""
    costs = np.full((len(all_features), 2), np.nan)
    places: dict[str, list[int]] = {}
    for place, features in enumerate(all_features):
        places.setdefault(features.kind, []).append(place)
    for of_kind in places.values():
        try:
            costs[of_kind] = table.totals([[all_features[place]] for place in of_kind])
        except InputError:
            continue
    return costs


def _profile(zoo: ZooFeatures, network: int, latency: Latency, device: Device) -> Profile:
    ram, flash = runtime_bytes(device)
    return Profile(
        **timing_fields(latency, device),
        peak_ram_bytes=int(zoo.peak_bytes[network]) + ram,
        flash_bytes=int(zoo.weight_bytes[network]) + flash,
        macs=int(zoo.macs[network]),
        params=int(zoo.params[network]),
        weight_count=int(zoo.weight_counts[network]),
    )
