"""The device of this machine: one that ships, calibrated once where this machine is not the one it was measured on."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import date
from pathlib import Path

from filelock import FileLock

from hw_profiles.device_kit.kit_networks import FIRST, kit_names
from hw_profiles.device_kit.kit_results import KitResult, device_of_result
from hw_profiles.device_kit.machine_check import compared, kit_times
from hw_profiles.devices.device import Device
from hw_profiles.devices.device_file import kept_file, list_devices, load_device, save_device
from hw_profiles.devices.machine import conditions, differing_conditions, matches_this_machine
from hw_profiles.measurement.latency_measurement import reference_ms
from hw_profiles.user_folders import DATA_VARIABLE, kept_in

_log = logging.getLogger("fitnas")


def device_here(name: str | Path) -> Device:
    """As :func:`hw_profiles.load_device`, but a device that ships and is measured on this machine is made to fit it.

    Where this machine is not of the kind on which the device was measured, ten networks are run, which takes a few
    seconds. If their times are as estimated, the device is used as it is; otherwise more networks are run, half a
    minute all together, and its costs are corrected. Either is logged, and stored in the user's
    folder: the next call on such a machine, and each :func:`hw_profiles.load_device`, takes it from there.

    Raises:
        InputError: no such device, a broken file, or a folder of the user that cannot be written to.
    """
    device = load_device(name)
    if name not in list_devices() or not device.measurable or matches_this_machine(device.conditions, device.threads):
        return device
    kept = kept_file(str(name))
    lock = FileLock(kept.with_suffix(".lock"))
    with kept_in(kept.parent, DATA_VARIABLE):
        lock.acquire()
    try:
        if not kept.is_file():  # another process may have made it while this one waited
            save_device(kept, _fitted_to_this_machine(device))
            _log.info("device %s, adapted to this machine, was saved to %s", device.name, kept)
    finally:
        lock.release()
    return load_device(name)


def _fitted_to_this_machine(device: Device) -> Device:
    here = conditions(device.threads)
    _log.info(
        "device %s was not measured on this kind of machine (other %s): running %d networks to see whether it fits",
        device.name, ", ".join(differing_conditions(device.conditions, device.threads)), FIRST,
    )  # fmt: skip
    nominal, precisions = round(reference_ms(device.threads), 6), tuple(device.costs)
    times = kit_times(kit_names()[:FIRST], precisions, device.threads, nominal)
    check = compared(device, times)
    shares = ", ".join(f"{100 * check.share_close(each):.0f}% of the networks in {each}" for each in check.precisions)
    if check.holds:
        _log.info("estimates agree with the measurements within 10%% for %s", shares)
        return replace(device, conditions={**here, "date": date.today().isoformat()}, reference_ms=nominal)
    _log.info("estimates agree within 10%% for only %s; calibrating once (about 30 s)", shares)
    times += kit_times(kit_names()[FIRST:], precisions, device.threads, nominal)
    result = KitResult(conditions=here, runtime=device.runtime, reference_ms=nominal, times=tuple(times))
    found = device_of_result(device, result, device.name, measurable=True)
    errors = ", ".join(f"{100 * error:.1f} % in {name}" for name, error in found.left_out_errors.items())
    _log.info("calibrated; mean leave-one-out error: %s", errors)
    return replace(found.device, facts=device.facts)
