"""What a network costs on a device: operations, fused kernels, memory, latency. Only torch_io loads torch."""

from __future__ import annotations

from hw_profiles.budget import Budget
from hw_profiles.calibration import calibrate
from hw_profiles.devices.device import Device
from hw_profiles.devices.device_file import list_devices, load_device
from hw_profiles.errors import InputError
from hw_profiles.network.workload import Workload
from hw_profiles.profiling import Profile, profile

__all__ = [
    "Budget",
    "Device",
    "InputError",
    "Profile",
    "Workload",
    "calibrate",
    "list_devices",
    "load_device",
    "profile",
]
