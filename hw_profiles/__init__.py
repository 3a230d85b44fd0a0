"""What a network costs on a device: operations, fused kernels, memory, latency. Only torch_io loads torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hw_profiles.budget import Budget
from hw_profiles.calibration import calibrate
from hw_profiles.devices.device import Device
from hw_profiles.devices.device_file import list_devices, load_device
from hw_profiles.errors import InputError
from hw_profiles.network.workload import Workload
from hw_profiles.profiling import Profile, profile

if TYPE_CHECKING:
    from hw_profiles.device_kit.kit_files import write_kit
    from hw_profiles.device_kit.machine_check import check_machine
    from hw_profiles.layer_profile import profile_layers
    from hw_profiles.measurement.device_measurement import measure_device

__all__ = [
    "Budget",
    "Device",
    "InputError",
    "Profile",
    "Workload",
    "calibrate",
    "check_machine",
    "list_devices",
    "load_device",
    "measure_device",
    "profile",
    "profile_layers",
    "write_kit",
]

_HOMES = {
    "check_machine": "device_kit.machine_check",
    "measure_device": "measurement.device_measurement",
    "profile_layers": "layer_profile",
    "write_kit": "device_kit.kit_files",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"hw_profiles.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'hw_profiles' has no attribute {name!r}")
