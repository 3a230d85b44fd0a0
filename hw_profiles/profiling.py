"""What a network costs on a device."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from hw_profiles.device import Device
from hw_profiles.formats import check_precision
from hw_profiles.fusion import fuse
from hw_profiles.latency import Latency, estimate, measure
from hw_profiles.memory import plan
from hw_profiles.onnx_read import read_onnx
from hw_profiles.onnx_write import fixed_quantization, write_onnx
from hw_profiles.workload import Workload


class HasWorkload(Protocol):
    """Anything that can say what it computes, such as an Arch."""

    def workload(self) -> Workload:
        """Its operations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Costs of one network in one precision on one device; None where nobody can say.

    ``latency_low_ms`` and ``latency_high_ms`` hold 90 %. ``peak_ram_bytes`` are activations that live at once.
    ``flash_bytes`` are weights with their scales. ``macs`` are those of convolutions, linear and matmul operations.
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

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def profile(
    model: HasWorkload | str | Path, device: Device, precision: str = "fp32", *, measured: bool = False
) -> Profile:
    """Cost of an Arch in ``precision``, or of an ONNX file as it is.

    With ``measured`` the latency is taken on this machine: an Arch is written with random weights in the form in
    which it will run, a file is run itself.

    Raises:
        ValueError: not a model, an unknown precision, or a device that is not this machine and shall be measured.

    >>> from hw_profiles import load_device
    >>> from search_spaces import preset
    >>> profile(preset("resnet8"), load_device("host"), "int8").peak_ram_bytes
    49152
    """
    check_precision(precision)
    if isinstance(model, str | Path):
        path = Path(model)
        workload = read_onnx(path)
        latency = _latency(workload, path, device, measured)
        return _profile(workload, latency, None)
    workload = model.workload()
    quantization = fixed_quantization(workload) if precision == "int8" else None
    source = write_onnx(workload, quantization=quantization) if measured else b""
    latency = _latency(workload.with_precision(precision), source, device, measured)
    return _profile(workload.with_precision(precision), latency, workload.params)


def _latency(workload: Workload, source: bytes | Path, device: Device, measured: bool) -> Latency:
    return measure(source, device) if measured else estimate(workload, fuse(workload, device.runtime), device)


def _profile(workload: Workload, latency: Latency, params: int | None) -> Profile:
    return Profile(
        latency_ms=latency.ms,
        latency_low_ms=latency.low_ms,
        latency_high_ms=latency.high_ms,
        latency_source=latency.source,
        latency_raw_ms=latency.raw_ms,
        peak_ram_bytes=plan(workload, fuse(workload)).peak_bytes,
        flash_bytes=workload.weight_bytes,
        macs=workload.macs,
        params=params,
        weight_count=workload.weight_count,
    )
