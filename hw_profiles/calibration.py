"""Calibrates a device with a few measured latencies."""

from __future__ import annotations

import logging
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path

from hw_profiles.cost_model.features import CostFeatures, network_features
from hw_profiles.cost_model.kernel_costs import CostTable, KernelCost
from hw_profiles.cost_model.plain_costs import plain_costs
from hw_profiles.cost_model.refine import Refined, refine
from hw_profiles.cost_model.scaling import Scaling, scale
from hw_profiles.cost_model.size_regression import mixture, size_regression
from hw_profiles.devices.c99_program import facts_of_calibrated
from hw_profiles.devices.device import Device
from hw_profiles.devices.facts import NINETY
from hw_profiles.errors import InputError
from hw_profiles.latency.estimate import precision_of
from hw_profiles.profiling import Model, check_device, is_onnx_path, workload_of, workload_on
from hw_profiles.runtimes.fusion import fuse

_CALIBRATED = "; calibrated"
_FEWEST_TO_JUDGE = 4  # measurements, of which one may be called an outlier
_FAR_OFF = math.log(5)  # from what the others say: half way to ten-fold, on a scale of logarithms
_MOST_SET_ASIDE = 1 / 3
_FEWEST_TO_LEAVE_THE_BASE = 3
_FEWEST_TO_MIX = 5
_DOUBT_OF_THE_BASE = 2.0  # logarithm of how much likelier its costs must make the times; without it 5 and 10 mislead
_FEWEST_TO_SPREAD = 4  # measurements whose errors say how far others are off
_CHOSEN_BY_ERRORS = 2  # of the same networks: how much each estimate counts, and how far corrections may go
_LEAST_DEVIATION, _MANY = 0.02, 10
_MOST_NETWORKS = 200
_log = logging.getLogger("fitnas")


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """A calibrated device; ``set_aside`` says of each measurement that was not used which one and why;
    ``left_out_error`` is the mean of |estimate / measurement - 1| of those used, each by the others alone.
    """

    device: Device
    used: int
    set_aside: tuple[str, ...]
    left_out_error: float | None


def calibrate(
    base: Device,
    measured: Iterable[tuple[Model, float]],
    precision: str = "fp32",
    input_shape: tuple[int, ...] | None = None,
) -> Device:
    """Correct the costs of a device by measured latencies; about five measurements are enough to help.

    There is one factor per quantity of each kind of kernel, see :func:`hw_profiles.cost_model.scaling.scale`. A machine
    that is similar to the base but faster keeps its cost structure; for a different machine the structure is adapted as
    far as the measurements support it. From five measurements on, the estimate is averaged with a regression on sizes
    alone (:mod:`hw_profiles.cost_model.size_regression`). The interval comes from leave-one-out errors of the
    measurements; several measurements of the same network count as one, their median. Values that cannot be a latency,
    and outliers by a factor of five or more, are ignored with a warning (see :func:`calibration_report` for the list).

    Args:
        base: the most similar device.
        measured: pairs of a model (see :func:`hw_profiles.profile`) and its latency in milliseconds.
        precision: ``"fp32"`` or ``"int8"``.
        input_shape: input shape of models that do not define it.

    Returns:
        The corrected device; without measurements, the base.

    Raises:
        InputError: no measurement that can be used among those given, or a model that cannot be read.

    >>> from hw_profiles import load_device, profile
    >>> from search_spaces import preset
    >>> host, model = load_device("host"), preset("resnet8")
    >>> twice = 2 * profile(model, host).latency_ms
    >>> bool(profile(model, calibrate(host, [(model, twice)])).latency_ms > 0.9 * twice)
    True
    """
    found = calibration_report(base, measured, precision, input_shape)
    for reason in found.set_aside:
        _log.warning("calibrate: %s", reason)
    return found.device


def calibration_report(
    base: Device,
    measured: Iterable[tuple[Model, float]],
    precision: str = "fp32",
    input_shape: tuple[int, ...] | None = None,
    names: Sequence[str] | None = None,
) -> Calibration:
    """As :func:`calibrate`, with what was set aside; ``names`` are what the models are called there.

    >>> from hw_profiles import load_device
    >>> from search_spaces import preset
    >>> measured = [(preset("resnet8"), 0.5), (preset("mobilenetv2_100"), float("nan"))]
    >>> found = calibration_report(load_device("host"), measured, names=("resnet8", "mobilenetv2_100"))
    >>> found.used, found.set_aside
    (1, ('mobilenetv2_100: nan ms is not a positive number',))
    """
    check_device(base)
    base.table(precision)
    pairs = _pairs(measured)
    if not pairs:
        return Calibration(device=base, used=0, set_aside=(), left_out_error=None)
    names = names or [_name(i, model) for i, (model, _) in enumerate(pairs)]
    times = {i: float(ms) for i, (_, ms) in enumerate(pairs) if _is_time(ms)}
    set_aside = [f"{names[i]}: {ms!r} ms is not a positive number" for i, (_, ms) in enumerate(pairs) if i not in times]
    if not times:
        raise InputError(
            f"calibrate: at least one measurement must be a positive number, got {'; '.join(set_aside):.200}"
        )
    networks = _networks({i: _features(base, pairs[i][0], precision, input_shape) for i in times}, times)
    chosen = _of_all_sizes(networks)
    found = corrected_costs(
        base.costs[precision], precision, [each.features for each in chosen], [each.ms for each in chosen]
    )
    far_off = _far_off(chosen, found.outliers, times)
    set_aside += [
        f"{names[i]}: {times[i]:g} ms is {ratio:.2g} times what the other measurements suggest"
        for i, ratio in far_off.items()
    ]
    used = sum(len(each.numbers) for i, each in enumerate(chosen) if i not in found.outliers)
    device = replace(
        base,
        source=f"{_without_calibration(base.source, precision)}{_CALIBRATED} in {precision} with {used} measurements",
        calibrated=tuple(dict.fromkeys((*base.calibrated, precision))),
        spread={**base.spread, precision: found.deviation},
        costs={**base.costs, precision: found.costs},
        facts=facts_of_calibrated(base),
        held_out={name: held_out for name, held_out in base.held_out.items() if name != precision},
    )
    errors = [abs(math.expm1(each)) for each in found.left_out]
    error = statistics.mean(errors) if len(errors) > 1 else None
    return Calibration(device=device, used=used, set_aside=tuple(set_aside), left_out_error=error)


def _pairs(measured: Iterable[tuple[Model, float]]) -> list[tuple[Model, float]]:
    pairs: list[tuple[Model, float]] = []
    for each in measured:
        try:
            model, ms = each
        except (TypeError, ValueError):
            raise InputError(
                f"calibrate: each measurement must be a model and its milliseconds, got {each!r:.80}"
            ) from None
        pairs.append((model, ms))
    return pairs


@dataclass(frozen=True, kw_only=True, slots=True)
class _Network:
    """One network, however often it was measured: the median of its times, the ``numbers`` of the measurements that it
    is of, and those that are ``far_off`` the others.
    """

    features: tuple[CostFeatures, ...]
    ms: float
    numbers: tuple[int, ...]
    far_off: tuple[int, ...]


def _networks(features: Mapping[int, Sequence[CostFeatures]], times: Mapping[int, float]) -> list[_Network]:
    """The measurements, those of equal networks together: each of several would seem to be predicted by the others."""
    alike: dict[tuple[CostFeatures, ...], list[int]] = {}
    for i, each in features.items():
        alike.setdefault(tuple(each), []).append(i)
    return [_network(each, numbers, times) for each, numbers in alike.items()]


def _network(features: tuple[CostFeatures, ...], numbers: Sequence[int], times: Mapping[int, float]) -> _Network:
    usual = statistics.median(math.log(times[i]) for i in numbers)
    near = [i for i in numbers if abs(math.log(times[i]) - usual) <= _FAR_OFF] or numbers  # two may contradict
    return _Network(
        features=features,
        ms=statistics.median(times[i] for i in near),
        numbers=tuple(near),
        far_off=tuple(i for i in numbers if i not in near),
    )


def _of_all_sizes(networks: Sequence[_Network]) -> Sequence[_Network]:
    """The networks, or of very many some of all speeds: the time grows as the cube of their number."""
    if len(networks) <= _MOST_NETWORKS:
        return networks
    _log.info(
        "calibrate: %d of the %d networks are used, from the fastest to the slowest", _MOST_NETWORKS, len(networks)
    )
    ordered = sorted(networks, key=lambda each: each.ms)
    return [ordered[round(i * (len(ordered) - 1) / (_MOST_NETWORKS - 1))] for i in range(_MOST_NETWORKS)]


def _far_off(
    networks: Sequence[_Network], outliers: Mapping[int, float], times: Mapping[int, float]
) -> dict[int, float]:
    """How many times what the others say each measurement is that is not used, by its number."""
    ratios = {i: times[i] / network.ms for network in networks for i in network.far_off}
    for place, ratio in outliers.items():
        ratios |= {i: ratio * times[i] / networks[place].ms for i in networks[place].numbers}
    return dict(sorted(ratios.items()))


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectedCosts:
    """Costs that measured networks corrected.

    ``outliers`` has each measurement that was set aside by its index, and how many times what the others say it is;
    ``left_out`` log(predicted / measured) of each of the rest by the others; ``deviation`` is the relative standard
    deviation of what an estimate of a network like those misses.
    """

    costs: Mapping[str, KernelCost]
    outliers: Mapping[int, float]
    left_out: tuple[float, ...]
    deviation: float


def corrected_costs(
    costs: Mapping[str, KernelCost],
    precision: str,
    networks: Sequence[Sequence[CostFeatures]],
    milliseconds: Sequence[float],
) -> CorrectedCosts:
    """The costs of :func:`calibrate`, from the features of the measured networks.

    >>> from hw_profiles import load_device
    >>> from search_spaces import preset
    >>> host, workload = load_device("host"), preset("resnet8").workload()
    >>> found = corrected_costs(host.costs["fp32"], "fp32", [network_features(workload, fuse(workload))], [1.0])
    >>> 0.9 < CostTable(found.costs).total(network_features(workload, fuse(workload)))[0] / 1000 < 1.1
    True
    """
    scaled, found, outliers = _without_outliers(costs, precision, networks, milliseconds)
    kept = [i for i in range(len(networks)) if i not in outliers]
    used, microseconds = [networks[i] for i in kept], [1000 * milliseconds[i] for i in kept]
    mixed, left_out = scaled, found.left_out
    if len(kept) >= _FEWEST_TO_MIX:
        by_size = size_regression(plain_costs(costs, precision), used, microseconds)
        mixed, left_out = mixture(scaled, found.left_out, by_size, used)
    refined = refine(mixed, used, microseconds, left_out)
    return CorrectedCosts(
        costs=refined.costs, outliers=outliers, left_out=refined.left_out, deviation=_deviation(found, refined)
    )


def _deviation(found: Scaling, refined: Refined) -> float:
    """What the estimate of a network like the measured ones may be off: what each of them would be without it, more
    where few say so (Student's t). A few errors may all be small by chance: until
    there are ten it is not less than after factors alone.
    """
    count = len(refined.left_out)
    if count < _FEWEST_TO_SPREAD:
        return found.deviation
    rms = math.sqrt(sum(each**2 for each in refined.left_out) / (count - _CHOSEN_BY_ERRORS))
    wider = 1 + (NINETY**2 + 1) / (4 * (count - 1))  # the first term of Student's t around the normal distribution
    return max(rms * wider, _LEAST_DEVIATION if count >= _MANY else found.deviation)


def _without_outliers(
    costs: Mapping[str, KernelCost],
    precision: str,
    networks: Sequence[Sequence[CostFeatures]],
    milliseconds: Sequence[float],
) -> tuple[dict[str, KernelCost], Scaling, dict[int, float]]:
    """The costs, the factors that made them, and each measurement that was set aside, in times what the others say."""
    estimates = CostTable(costs).totals(networks)
    ratios = [math.log(1000 * ms / us) for ms, (us, _) in zip(milliseconds, estimates, strict=True)]
    left, outliers = list(range(len(networks))), dict[int, float]()

    def fitted(chosen: Sequence[int]) -> tuple[Mapping[str, KernelCost], Scaling]:
        return _scaled(costs, precision, [networks[i] for i in chosen], [1000 * milliseconds[i] for i in chosen])

    base, found = fitted(left)
    while len(left) >= _FEWEST_TO_JUDGE and len(outliers) < _MOST_SET_ASIDE * len(networks):
        suspect = _suspect(left, ratios, found)
        if suspect is None:
            break
        others = [i for i in left if i != suspect]
        base_without, without = fitted(others)
        predicted = CostTable(without.apply(base_without)).total(networks[suspect])[0]
        ratio = 1000 * milliseconds[suspect] / predicted
        if abs(math.log(ratio)) <= _FAR_OFF:
            break
        left, base, found, outliers[suspect] = others, base_without, without, ratio
    return found.apply(base), found, outliers


def _suspect(left: Sequence[int], ratios: Sequence[float], found: Scaling) -> int | None:
    """The measurement that may be an outlier: the one furthest from the usual ratio to the base, or else from what the
    others say; None where none is far off.
    """
    usual = statistics.median(ratios[i] for i in left)
    furthest = max(left, key=lambda i: abs(ratios[i] - usual))
    if abs(ratios[furthest] - usual) > _FAR_OFF:
        return furthest
    error, unlike = max((abs(error), i) for error, i in zip(found.left_out, left, strict=True))
    return unlike if error > _FAR_OFF else None


def _scaled(
    costs: Mapping[str, KernelCost],
    precision: str,
    networks: Sequence[Sequence[CostFeatures]],
    microseconds: Sequence[float],
) -> tuple[Mapping[str, KernelCost], Scaling]:
    """The costs that are corrected, and how: the base's, or those of a machine of which nothing is known unless the
    base's make the times much likelier. One of another kind than the base may be unlike it in every kind of kernel.
    """
    known = scale(costs, networks, microseconds)
    if len(networks) < _FEWEST_TO_LEAVE_THE_BASE:
        return costs, known
    plain = plain_costs(costs, precision)
    other = scale(plain, networks, microseconds)
    return (costs, known) if known.evidence >= other.evidence + _DOUBT_OF_THE_BASE else (plain, other)


def _without_calibration(source: str, precision: str) -> str:
    return re.sub(rf"{_CALIBRATED} in {precision} with \d+ measurements", "", source)


def _features(base: Device, model: Model, precision: str, input_shape: tuple[int, ...] | None) -> list[CostFeatures]:
    own = workload_of(model, input_shape)
    if is_onnx_path(model) and precision_of(own) == "int8" != precision:
        raise InputError(f"{model} is an int8 file: its latency must be given as one in int8, got {precision}")
    workload = workload_on(base, model, own, input_shape).with_precision(precision)
    return network_features(workload, fuse(workload, base.runtime))


def _is_time(ms: object) -> bool:
    try:
        return isinstance(ms, Real) and not isinstance(ms, bool) and 0 < float(ms) < math.inf
    except OverflowError:
        return False


def _name(index: int, model: Model) -> str:
    return str(model) if isinstance(model, str | Path) else f"measurement {index + 1} ({type(model).__name__})"
