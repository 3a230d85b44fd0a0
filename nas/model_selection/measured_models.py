"""Times selected models on this machine: exported with random weights, which take as long as trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hw_profiles import Device
from hw_profiles.latency.estimate import Latency
from nas.errors import InputError
from nas.model_selection.zoo_selection import SelectedModel

if TYPE_CHECKING:
    from torch import nn

_CALIBRATION_IMAGES = 2


def check_measurable(device: Device) -> None:
    """Raise an InputError where the device is not this machine."""
    if not device.measurable:
        raise InputError(
            f"--measure requires a device file of this machine, but {device.name} is a different device; omit it, or "
            "run `nas devices measure --out my.toml` and `nas select --device my.toml --measure N` on that device"
        )


def with_measurements(models: Sequence[SelectedModel], count: int, device: Device) -> list[SelectedModel]:
    """The models, the first ``count`` of them with the latency of a file that was exported and run here.

    Raises:
        InputError: the device is not this machine, or a model cannot be exported or quantized.
    """
    if count:
        check_measurable(device)
    return [replace(m, measured=measured_latency(m, device)) if i < count else m for i, m in enumerate(models)]


def measured_latency(model: SelectedModel, device: Device) -> Latency:
    """The latency of the model's ONNX file on this machine. Weights are random, nothing is downloaded; in int8 the file
    is quantized as by :func:`compress.quantize`, its ranges from random images.
    """
    from hw_profiles.measurement.latency_measurement import measure
    from hw_profiles.torch_io.timm_models import timm_module
    from hw_profiles.torch_io.trace import export

    module = timm_module(model.name, model.input_shape)
    if model.precision == "int8":
        file = _in_int8(module, model.input_shape, device)
    else:
        file = export(module, model.input_shape)
    return measure(file, device, input_shape=model.input_shape)


def _in_int8(module: nn.Module, input_shape: tuple[int, int, int], device: Device) -> bytes:
    from compress import Quantize, quantize
    from compress.networks.onnx_export import onnx_bytes

    images = np.random.default_rng(0).standard_normal((_CALIBRATION_IMAGES, *input_shape), dtype=np.float32)
    activations = Quantize().activations_on(device)
    plain = Quantize(
        calibration="minmax", equalize="none", bias_correction=False, adaround=False, activations=activations
    )
    return onnx_bytes(quantize(module, images, plain))
