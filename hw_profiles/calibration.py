"""Calibrates a device with a few measured latencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hw_profiles.cost_model.features import network_features
from hw_profiles.devices.device import Device
from hw_profiles.errors import InputError
from hw_profiles.latency.estimate import prediction_deviation
from hw_profiles.profiling import Model, workload_of
from hw_profiles.runtimes.fusion import fuse

_CALIBRATED = "; calibrated"
_OF_A_KIND = 0.15  # how far the costs of one kind of kernel may be off the rest


def calibrate(
    base: Device,
    measured: Sequence[tuple[Model, float]],
    precision: str = "fp32",
    input_shape: tuple[int, int, int] | None = None,
) -> Device:
    """The device with its costs in ``precision`` corrected by measured (model, milliseconds); five improve it.

    One factor for all kernels and one for each kind, by Bayesian linear regression on relative times: what was not
    measured stays near the common factor. The interval shrinks as far as the measurements allow, and holds what each of
    them would miss if the others alone had been there.

    Raises:
        InputError: no measurement, milliseconds that are not a positive number, or a model that cannot be read.

    >>> from hw_profiles import load_device, profile
    >>> from search_spaces import preset
    >>> host, model = load_device("host"), preset("resnet8")
    >>> twice = 2 * profile(model, host).latency_ms
    >>> bool(profile(model, calibrate(host, [(model, twice)])).latency_ms > 0.9 * twice)
    True
    """
    if not measured:
        raise InputError("calibrate: at least one measurement is needed, got none")
    for model, ms in measured:
        if isinstance(ms, bool) or not isinstance(ms, int | float) or not 0 < ms < math.inf:
            raise InputError(f"calibrate: milliseconds must be a positive number, got {ms!r} for {_name(model)}")
    shares, ratios = _shares(base, measured, precision, input_shape)
    prior = prediction_deviation(base, precision)
    common, factors, deviation = _factors(shares, ratios, prior, min(prior, base.spread[precision]))
    costs = {
        kind: replace(
            cost, coefficients=tuple(linear_cost * factors.get(kind, common) for linear_cost in cost.coefficients)
        )
        for kind, cost in base.costs[precision].items()
    }
    return replace(
        base,
        source=f"{base.source.partition(_CALIBRATED)[0]}{_CALIBRATED} in {precision} with {len(measured)} measurements",
        calibrated=tuple(dict.fromkeys((*base.calibrated, precision))),
        spread={**base.spread, precision: deviation},
        costs={**base.costs, precision: costs},
    )


def _shares(
    base: Device, measured: Sequence[tuple[Model, float]], precision: str, input_shape: tuple[int, int, int] | None
) -> tuple[list[dict[str, float]], list[float]]:
    """Of each measured model: the share of each kind in its estimate, and how often the estimate the measurement is."""
    table = base.table(precision)
    shares, ratios = [], []
    for model, ms in measured:
        workload = workload_of(model, input_shape).with_precision(precision)
        all_features = network_features(workload, fuse(workload, base.runtime))
        whole = table.total(all_features)[0]
        share: dict[str, float] = {}
        for features in all_features:
            share[features.kind] = share.get(features.kind, 0.0) + table.total([features])[0] / whole
        shares.append(share)
        ratios.append(1000 * ms / whole)
    return shares, ratios


def _factors(
    shares: Sequence[dict[str, float]], ratios: Sequence[float], prior: float, noise: float
) -> tuple[float, dict[str, float], float]:
    """The common factor, the factor of each kind, and the relative standard deviation that is left.

    The common factor is the geometric mean first, so that kinds only have to explain what differs from it.
    """
    kinds = sorted({kind for share in shares for kind in share})
    first = math.exp(float(np.mean(np.log(ratios))))
    matrix = np.array([[1.0, *(share.get(kind, 0.0) for kind in kinds)] for share in shares])
    target = np.array(ratios) / first - 1
    inverse = np.diag([1 / prior**2, *([1 / _OF_A_KIND**2] * len(kinds))])
    covariance = np.linalg.inv(matrix.T @ matrix / noise**2 + inverse)
    change = covariance @ matrix.T @ target / noise**2
    typical = matrix.mean(axis=0)
    deviation = math.hypot(noise, math.sqrt(float(typical @ covariance @ typical)))
    leverage = np.einsum("ij,jk,ik->i", matrix, covariance, matrix) / noise**2
    left_out = (target - matrix @ change) / (1 - leverage)
    deviation = max(deviation, math.sqrt(float(np.mean(np.square(left_out)))))
    common = first * (1 + float(change[0]))
    factors = {kind: common + first * float(c) for kind, c in zip(kinds, change[1:], strict=True)}
    return common, {kind: max(factor, 0.1 * first) for kind, factor in factors.items()}, deviation


def _name(model: Model) -> str:
    return str(model) if isinstance(model, str | Path) else type(model).__name__
