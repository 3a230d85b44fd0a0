"""Ranks timm's pretrained models by published accuracy within a budget; nothing is downloaded, built or run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path

from hw_profiles import Budget, Device, Profile, load_device
from hw_profiles.budget import violations
from hw_profiles.devices.c99_program import runs_c99
from hw_profiles.latency.energy import energy_upper_bound_mj
from hw_profiles.latency.estimate import Latency
from hw_profiles.model_zoo.accuracies import PublishedAccuracy, published_accuracies
from hw_profiles.model_zoo.zoo_profiles import zoo_profiles
from nas.config import budget_of
from nas.engine.infeasibility import Infeasibility
from nas.errors import InputError, NothingFitsError

CAVEAT = "published float32 accuracy (int8 loss not measured)"
"""Stated beside every accuracy of a selection."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectedModel:
    """A pretrained timm model at one image size, with its costs in a precision on a device.

    ``name`` is that of timm, with the tag of the weights; ``input_shape`` (C, H, W); ``published_top1`` between 0 and 1
    is the ImageNet accuracy published by timm for the float32 model at that size; the accuracy loss of int8 has not
    been measured. The costs are those of :class:`hw_profiles.Profile`, estimated; limits are checked against the upper
    bounds. ``on_front``: Pareto-optimal in accuracy and latency among the models within the budget. ``measured`` is the
    latency on this machine, if requested.
    """

    name: str
    input_shape: tuple[int, int, int]
    precision: str
    published_top1: float
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    latency_upper_bound_ms: float
    latency_source: str
    peak_ram_bytes: int
    flash_bytes: int
    macs: int
    params: int | None
    energy_mj: float | None = None
    energy_upper_bound_mj: float | None = None
    on_front: bool = False
    measured: Latency | None = None

    def costs(self) -> dict[str, float]:
        """What is compared with the limits of a Budget, by their names; what the device cannot say is left out."""
        costs = {
            "latency_ms": self.latency_upper_bound_ms,
            "peak_ram_bytes": float(self.peak_ram_bytes),
            "flash_bytes": float(self.flash_bytes),
        }
        bound = self.energy_upper_bound_mj
        return costs if bound is None else {**costs, "energy_mj": bound}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """``within``: every model at every published image size that meets the budget, most accurate first; ``beyond``: the
    others; ``too_large``: those whose weights and activations together exceed the device's RAM; ``left_out``: names of
    models whose cost is unknown. ``budget`` includes the RAM and flash of a microcontroller.
    """

    device: Device
    precision: str
    budget: Budget
    within: tuple[SelectedModel, ...]
    beyond: tuple[SelectedModel, ...]
    too_large: tuple[SelectedModel, ...]
    left_out: tuple[str, ...]

    @cached_property
    def ranked(self) -> tuple[SelectedModel, ...]:
        """Each model once, at the image size at which it is the most accurate within the budget."""
        best: dict[str, SelectedModel] = {}
        for model in self.within:
            best.setdefault(model.name, model)
        return tuple(best.values())

    @property
    def front(self) -> tuple[SelectedModel, ...]:
        """The Pareto front of accuracy and latency within the budget, the most accurate first."""
        return tuple(model for model in self.within if model.on_front)


def select(
    device: str | Path | Device,
    *,
    latency: str | None = None,
    ram: str | None = None,
    flash: str | None = None,
    energy: str | None = None,
    precision: str = "fp32",
    top: int | None = 10,
) -> list[SelectedModel]:
    """Rank the pretrained timm models that meet a budget by published accuracy, most accurate first.

    Accuracies are those of timm's results (https://github.com/huggingface/pytorch-image-models/tree/main/results) for
    the float32 models; the accuracy loss of int8 has not been measured. Costs are estimated as by
    :func:`hw_profiles.profile`. A model qualifies if it meets the latency limit with 90% probability. A model listed at
    several image sizes is returned once, at the most accurate one that meets the budget. The RAM and flash of a
    microcontroller are limits unless others are given; on any other device with known RAM, weights and activations must
    fit in it together.

    Args:
        device: a name of :func:`hw_profiles.list_devices`, a device file or a Device.
        latency: limit with a unit, e.g. ``"30ms"``.
        ram: limit on the activation memory, e.g. ``"256kB"``.
        flash: limit on the weight size, e.g. ``"1MB"``.
        energy: limit on the energy per inference, e.g. ``"2mJ"``.
        precision: ``"fp32"`` or ``"int8"``.
        top: number of models to return, None for all.

    Returns:
        The models, most accurate first.

    Raises:
        InputError: no such device, precision or unit, or a limit on what the device cannot say.
        NothingFitsError: no model meets the budget; the message names the binding limit and the smallest change that
            would help.

    >>> import nas
    >>> found = nas.select("host", latency="1000ms", flash="3MB", precision="int8", top=2)
    >>> [model.flash_bytes < 3e6 for model in found], found[0].published_top1 >= found[1].published_top1
    ([True, True], True)
    """
    if top is not None and not (isinstance(top, Integral) and top >= 1):
        raise InputError(f"top must be at least 1 (a whole number, or None for all), got {top!r}")
    budget = budget_of(latency=latency, ram=ram, flash=flash, energy=energy)
    found = selection(device if isinstance(device, Device) else load_device(device), budget, precision)
    return list(found.ranked[:top])


def selection(device: Device, budget: Budget, precision: str) -> Selection:
    """Divide all models by whether they meet the budget and fit in the memory of the device.

    Raises:
        InputError: an unknown precision, or a limit on what the device cannot say.
        NothingFitsError: no model meets the budget.

    >>> found = selection(load_device("host"), Budget(flash_bytes=3e6), "int8")
    >>> len(found.front) <= len(found.within) < len(found.beyond)
    True
    """
    profiles = zoo_profiles(device, precision)
    rows = published_accuracies()
    costed = [_costed(row, profiles[key], device, precision) for row in rows if (key := _key(row)) in profiles]
    if not costed:
        raise InputError(f"device {device.name} has no costs in {precision} for any model of timm")
    asked, budget = budget, _with_memory_of(device, budget)
    loadable = [model for model in costed if _can_be_loaded(model, device)]
    if not loadable:
        raise NothingFitsError(_none_can_be_loaded(costed, device))
    try:
        within, beyond = _divided(loadable, budget)
    except NothingFitsError as error:
        of_device = "" if budget == asked else f"; RAM and flash not limited by you are those of {device.name}"
        raise NothingFitsError(f"{error}{of_device}") from None
    return Selection(
        device=device,
        precision=precision,
        budget=budget,
        within=tuple(with_front(within)),
        beyond=tuple(beyond),
        too_large=tuple(model for model in costed if not _can_be_loaded(model, device)),
        left_out=tuple(sorted({row.model for row in rows if _key(row) not in profiles})),
    )


def _with_memory_of(device: Device, budget: Budget) -> Budget:
    """The budget with the RAM and flash of a microcontroller where it has no limit of its own."""
    if not runs_c99(device):
        return budget
    ram, flash = (device.number(name) or None for name in ("ram_bytes", "flash_bytes"))  # 0: outside the chip
    return replace(budget, peak_ram_bytes=budget.peak_ram_bytes or ram, flash_bytes=budget.flash_bytes or flash)


def _can_be_loaded(model: SelectedModel, device: Device) -> bool:
    """A microcontroller reads weights from its flash; any other device loads them into its RAM."""
    ram = device.number("ram_bytes")
    return ram is None or runs_c99(device) or _loaded_bytes(model) <= ram


def _loaded_bytes(model: SelectedModel) -> int:
    return model.peak_ram_bytes + model.flash_bytes


def _none_can_be_loaded(models: Sequence[SelectedModel], device: Device) -> str:
    least = min(models, key=_loaded_bytes)
    return (
        f"weights and activations of no model fit in the RAM of {device.name}, "
        f"{device.number('ram_bytes'):,.0f} bytes; the smallest, {least.name} at {least.input_shape[-1]} pixels, takes "
        f"{_loaded_bytes(least):,}"
    )


def with_front(models: Sequence[SelectedModel]) -> list[SelectedModel]:
    """The models, the most accurate first and the faster first of equals, with ``on_front`` set."""
    ordered = sorted(models, key=lambda model: (-model.published_top1, model.latency_ms, model.name))
    fastest = float("inf")
    marked = []
    for model in ordered:
        marked.append(replace(model, on_front=model.latency_ms < fastest))
        fastest = min(fastest, model.latency_ms)
    return marked


def _divided(models: Iterable[SelectedModel], budget: Budget) -> tuple[list[SelectedModel], list[SelectedModel]]:
    limits = budget.limits()
    why = Infeasibility(limits)
    within: list[SelectedModel] = []
    beyond: list[SelectedModel] = []
    nearest, least_excess = "", math.inf
    for model in models:
        costs = model.costs()
        why.add(costs)
        excess = sum(max(each, 0.0) for each in violations(costs, limits).values())
        (beyond if excess > 0 else within).append(model)
        if excess < least_excess:
            nearest, least_excess = f"{model.name} at {model.input_shape[-1]} pixels", excess
    if not within:
        raise NothingFitsError(f"{why.explain()}; the model closest to meeting the limits is {nearest}")
    return within, beyond


def _key(row: PublishedAccuracy) -> tuple[str, int]:
    return row.architecture, row.image_size


def _costed(row: PublishedAccuracy, profile: Profile, device: Device, precision: str) -> SelectedModel:
    return SelectedModel(
        name=row.model,
        input_shape=(3, row.image_size, row.image_size),
        precision=precision,
        published_top1=row.top1,
        latency_ms=profile.latency_ms,
        latency_low_ms=profile.latency_low_ms,
        latency_high_ms=profile.latency_high_ms,
        latency_upper_bound_ms=profile.latency_upper_bound_ms,
        latency_source=profile.latency_source,
        peak_ram_bytes=profile.peak_ram_bytes,
        flash_bytes=profile.flash_bytes,
        macs=profile.macs,
        params=profile.params,
        energy_mj=profile.energy_mj,
        energy_upper_bound_mj=energy_upper_bound_mj(device, profile.latency_upper_bound_ms),
    )
