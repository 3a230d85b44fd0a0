"""Profiles a network on a device: latency, RAM, flash, MACs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeGuard, runtime_checkable

from hw_profiles.devices.device import Device
from hw_profiles.devices.footprint import flash_bytes, ram_bytes, runtime_bytes
from hw_profiles.errors import InputError
from hw_profiles.latency.block_costs import parts_table
from hw_profiles.latency.energy import energy
from hw_profiles.latency.estimate import Latency, estimate, latency_from, upper_bound_ms
from hw_profiles.measurement.latency_measurement import measure
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.network.tensor_formats import check_precision
from hw_profiles.network.workload import InputShape, Workload
from hw_profiles.onnx_io.reader import read_onnx, read_without_dead_channels
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.runtimes.fusion import fuse


@runtime_checkable
class HasWorkload(Protocol):
    """Anything that can say what it computes, such as an Arch."""

    def workload(self) -> Workload:
        """Its operations."""


class HasParts(Protocol):
    """A network that is a chain of parts, such as an Arch: its profile is put together from theirs."""

    def parts(self) -> Sequence[Workload]:
        """Its operations, cut where one tensor alone is passed on."""


Model = HasWorkload | Workload | str | Path | Callable[..., Any]  # a callable is a module of torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Costs of one network in one precision on one device; None if unknown.

    ``latency_low_ms`` and ``latency_high_ms`` are the bounds of the 90% interval. ``peak_ram_bytes`` are the peak live
    activations and ``flash_bytes`` the weights including quantization scales, each with the overhead of the runtime
    that the device file states. ``macs`` are those of convolutions, linear and matmul operations, including
    channels that the runtime skips. ``energy_mj`` is active power times latency of one inference, if the device states
    its power.
    """

    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    latency_source: str
    latency_raw_ms: float | None
    peak_ram_bytes: int
    flash_bytes: int
    macs: int
    params: int | None
    weight_count: int
    energy_mj: float | None = None
    energy_low_mj: float | None = None
    energy_high_mj: float | None = None

    @property
    def latency_upper_bound_ms(self) -> float:
        """What is compared with a limit, see :func:`hw_profiles.latency.estimate.upper_bound_ms`."""
        return upper_bound_ms(self.latency_ms, self.latency_high_ms, self.latency_source)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def profile(
    model: Model,
    device: Device,
    precision: str = "fp32",
    *,
    input_shape: InputShape = None,
    measured: bool = False,
) -> Profile:
    """Estimate (or measure) latency, memory and energy of a model on a device.

    Args:
        model: an Arch, a torch module, a timm model name, or the path of an ONNX file.
        device: the target device, see :func:`hw_profiles.load_device`.
        precision: ``"fp32"`` or ``"int8"``; an ONNX file has its own.
        input_shape: (C, H, W), required if the model does not define it; {name: shape} for a file or module with
            several inputs.
        measured: measure the latency on this machine. An Arch is exported with random weights in the form in which it
            will run, a module is exported by torch, an ONNX file is run directly.

    Returns:
        The costs, with a 90% interval of the latency.

    Raises:
        InputError: not a model, an unknown precision, an ``input_shape`` that contradicts the model or is missing, a
            measurement of a device that is not this machine, or of a module in int8.

    >>> from hw_profiles import load_device
    >>> from search_spaces import preset
    >>> profile(preset("resnet8"), load_device("host"), "int8").peak_ram_bytes
    49152
    """
    check_precision(precision)
    check_device(device)
    whole = measured or is_onnx_path(model)  # a Path has parts of another sort
    if not whole and _has_parts(model) and device.runtime == "ort":
        found = _of_parts(model, device, precision, input_shape)
        if found is not None:
            return found
    workload = workload_of(model, input_shape)
    params = None if is_onnx_path(model) else workload.params
    if not is_onnx_path(model):
        workload = workload.with_precision(precision)
    runs = workload_on(device, model, workload, input_shape)
    kernels = fuse(runs, device.runtime)
    if measured:
        runnable = Path(str(model)) if is_onnx_path(model) else _runnable(model, workload, precision)
        latency = measure(runnable, device, input_shape=_sides(workload))
    else:
        latency = estimate(runs, kernels, device)
    return Profile(
        **timing_fields(latency, device),
        peak_ram_bytes=ram_bytes(runs, kernels, device),
        flash_bytes=flash_bytes(runs, kernels, device),
        macs=workload.macs,
        params=params,
        weight_count=workload.weight_count,
    )


def check_device(device: object) -> None:
    """Raise an InputError unless it is a Device.

    >>> check_device("host")
    Traceback (most recent call last):
    hw_profiles.errors.InputError: device must be a Device (see load_device), got 'host'
    """
    if not isinstance(device, Device):
        raise InputError(f"device must be a Device (see load_device), got {device!r:.80}")


def timing_fields(latency: Latency, device: Device) -> dict[str, Any]:
    """The fields of a profile that follow from the latency."""
    found = energy(device, latency.ms, latency.low_ms, latency.high_ms)
    return {
        **latency.facts(),
        "energy_mj": found.mj if found else None,
        "energy_low_mj": found.low_mj if found else None,
        "energy_high_mj": found.high_mj if found else None,
    }


def _of_parts(model: HasParts, device: Device, precision: str, input_shape: InputShape) -> Profile | None:
    parts = model.parts()
    _check_shape(parts[0], input_shape)
    cost = parts_table(device, precision).total(parts)
    if cost is None:
        return None
    latency = latency_from(cost.microseconds, cost.doubt, device, precision)
    ram, flash = runtime_bytes(device)
    return Profile(
        **timing_fields(latency, device),
        peak_ram_bytes=cost.peak_bytes + ram,
        flash_bytes=cost.weight_bytes + flash,
        macs=cost.macs,
        params=cost.params,
        weight_count=cost.weight_count,
    )


def workload_of(model: Model, input_shape: InputShape = None) -> Workload:
    """The operations of anything that :func:`profile` takes, for one image of ``input_shape`` (C, H, W), or of a file
    or module of several inputs for sides by name.

    Raises:
        InputError: not a model, or ``input_shape`` contradicts it or is missing.

    >>> workload_of("timm:resnet18", (3, 64, 64)).macs
    148557824
    """
    if is_onnx_path(model):
        return read_onnx(Path(str(model)), input_shape)
    if _is_module(model):
        from hw_profiles.torch_io.trace import trace

        if input_shape is None:
            raise InputError("input_shape is required for modules, e.g. (3, 224, 224)")
        return trace(model, input_shape)
    if isinstance(input_shape, Mapping):
        raise InputError(f"input_shape by name is for files and modules, got {dict(input_shape)}")
    if isinstance(model, str):
        from hw_profiles.torch_io.timm_models import trace_timm

        return trace_timm(model, input_shape)
    if isinstance(model, Workload):
        workload = model
    elif isinstance(model, HasWorkload):
        workload = model.workload()
    else:
        raise InputError(
            "model must be an Arch, a module, a timm model name or the path of an ONNX file, "
            f"got {type(model).__name__}"
        )
    _check_shape(workload, input_shape)
    return workload


def workload_on(device: Device, model: Model, workload: Workload, input_shape: InputShape = None) -> Workload:
    """What a device runs of a model that was read as ``workload``: of a file without the channels that change nothing,
    where the device's runtime leaves them out.

    >>> from hw_profiles import load_device
    >>> from search_spaces import preset
    >>> workload = preset("resnet8").workload()
    >>> workload_on(load_device("stm32l4r5"), preset("resnet8"), workload) is workload  # no weights are known
    True
    """
    if not (device.drops_dead_channels and is_onnx_path(model)):
        return workload
    return read_without_dead_channels(Path(str(model)), input_shape)


def _sides(workload: Workload) -> InputShape:
    """What each input is, without the batch."""
    if not workload.further_inputs:
        return workload.shapes[workload.input][1:]
    return {name: workload.shapes[name][1:] for name in workload.inputs}


def _check_shape(workload: Workload, input_shape: InputShape) -> None:
    own = workload.shapes[workload.input][1:]
    if input_shape is not None and (isinstance(input_shape, Mapping) or tuple(input_shape) != own):
        raise InputError(f"input_shape must be that of the network, {own}, or left out, got {tuple(input_shape)}")


def is_onnx_path(model: object) -> bool:
    """Whether a model is given as an ONNX file: a Path, or text that ends in .onnx in any case.

    >>> is_onnx_path("Net.ONNX"), is_onnx_path("resnet18")
    (True, False)
    """
    return isinstance(model, Path) or (isinstance(model, str) and model.casefold().endswith(".onnx"))


def _has_parts(model: object) -> TypeGuard[HasParts]:
    """As ``isinstance``, which takes thirty times as long for a protocol; a module may call anything its parts."""
    return hasattr(model, "parts") and not _is_module(model)


def _is_module(model: object) -> TypeGuard[Any]:
    """Without importing torch: who has a module has imported it already."""
    torch_nn = sys.modules.get("torch.nn")
    return torch_nn is not None and isinstance(model, torch_nn.Module)


def _runnable(model: Any, workload: Workload, precision: str) -> bytes:
    """A file that runs as the model will."""
    if not isinstance(model, str) and not _is_module(model):
        return write_onnx(workload, quantization=fixed_quantization(workload) if precision == "int8" else None)
    if precision != "fp32":
        raise InputError(
            f"a module can be measured in fp32 only, got {precision!r}: quantize it into a file and profile the file"
        )
    if workload.further_inputs:
        names = ", ".join(workload.inputs)
        raise InputError(f"a module of several inputs must be exported to be measured, got one of {names}")
    from hw_profiles.torch_io.timm_models import timm_module
    from hw_profiles.torch_io.trace import export

    input_shape = workload.shapes[workload.input][1:]
    return export(timm_module(model, input_shape) if isinstance(model, str) else model, input_shape)
