"""Makes the package's data of traced models: ``python -m hw_profiles.model_zoo.store_networks --help``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hw_profiles.devices.device_file import list_devices, shipped_device
from hw_profiles.model_zoo.stored_workloads import FILE, stored_networks, write_networks
from hw_profiles.model_zoo.trace_models import read_lines
from hw_profiles.model_zoo.zoo_features import features_file, work_out_features, write_features


def main(arguments: Sequence[str] | None = None) -> None:
    """Store the workloads where ``--traced`` is given, then the features of every runtime and precision of a device."""
    parser = argparse.ArgumentParser(description="Store traced models, and what is worked out of them.")
    parser.add_argument("--traced", type=Path, help="file of trace_models; without it the stored workloads are kept")
    parsed = parser.parse_args(arguments)
    if parsed.traced is not None:
        write_networks(read_lines(parsed.traced, failed=True), FILE)
        print(FILE.name, FILE.stat().st_size)
    for runtime, precision in sorted(needed_features()):
        path = features_file(runtime, precision)
        write_features(work_out_features(stored_networks(), runtime, precision), path)
        print(path.name, path.stat().st_size)


def needed_features() -> set[tuple[str, str]]:
    """The runtimes of the devices that come with the package, each with the precisions that it has costs in.

    >>> ("ort", "int8") in needed_features()
    True
    """
    devices = [shipped_device(name) for name in list_devices()]
    return {(device.runtime, precision) for device in devices for precision in device.costs}


if __name__ == "__main__":
    main()
